// RUN: parc-opt %s --split-input-file --verify-diagnostics

func.func @tolerance(%limit: index, %x: tensor<4xf32>, %y: tensor<5xf32>, %z: f32, %n: i32) {
  // expected-error @+1 {{expects `tolerance` to be a number that is not negative}}
  %s = "parc.iterate"(%limit) ({
  ^bb0(%k: index):
    %old = "parc.previous"(%x) {name = "x"} : (tensor<4xf32>) -> tensor<4xf32>
    "parc.next"(%old) {name = "x"} : (tensor<4xf32>) -> ()
    "parc.change"(%z) : (f32) -> ()
  }, {
  }) {name = "cell", solver = "jacobi", tolerance = -1.0 : f64} : (index) -> !parc.solution
  return
}

// -----

func.func @argument(%limit: index, %x: tensor<4xf32>, %y: tensor<5xf32>, %z: f32, %n: i32) {
  // expected-error @+1 {{expects a body of one block with one index argument}}
  %s = "parc.iterate"(%limit) ({
  ^bb0(%k: i32):
    %old = "parc.previous"(%x) {name = "x"} : (tensor<4xf32>) -> tensor<4xf32>
    "parc.next"(%old) {name = "x"} : (tensor<4xf32>) -> ()
    "parc.change"(%z) : (f32) -> ()
  }, {
  }) {name = "cell", solver = "jacobi", tolerance = 1.0e-6 : f64} : (index) -> !parc.solution
  return
}

// -----

func.func @no_next(%limit: index, %x: tensor<4xf32>, %y: tensor<5xf32>, %z: f32, %n: i32) {
  // expected-error @+1 {{expects one `parc.next` for each array taken with `parc.previous`, and an array}}
  %s = "parc.iterate"(%limit) ({
  ^bb0(%k: index):
    %old = "parc.previous"(%x) {name = "x"} : (tensor<4xf32>) -> tensor<4xf32>
    "parc.change"(%z) : (f32) -> ()
  }, {
  }) {name = "cell", solver = "jacobi", tolerance = 1.0e-6 : f64} : (index) -> !parc.solution
  return
}

// -----

func.func @no_array(%limit: index, %x: tensor<4xf32>, %y: tensor<5xf32>, %z: f32, %n: i32) {
  // expected-error @+1 {{expects one `parc.next` for each array taken with `parc.previous`, and an array}}
  %s = "parc.iterate"(%limit) ({
  ^bb0(%k: index):
    "parc.change"(%z) : (f32) -> ()
  }, {
  }) {name = "cell", solver = "jacobi", tolerance = 1.0e-6 : f64} : (index) -> !parc.solution
  return
}

// -----

func.func @no_change(%limit: index, %x: tensor<4xf32>, %y: tensor<5xf32>, %z: f32, %n: i32) {
  // expected-error @+1 {{expects one `parc.change`}}
  %s = "parc.iterate"(%limit) ({
  ^bb0(%k: index):
    %old = "parc.previous"(%x) {name = "x"} : (tensor<4xf32>) -> tensor<4xf32>
    "parc.next"(%old) {name = "x"} : (tensor<4xf32>) -> ()
  }, {
  }) {name = "cell", solver = "jacobi", tolerance = 1.0e-6 : f64} : (index) -> !parc.solution
  return
}

// -----

func.func @other_type(%limit: index, %x: tensor<4xf32>, %y: tensor<5xf32>, %z: f32, %n: i32) {
  // expected-error @+1 {{expects the next "x" to be of type tensor<4xf32>}}
  %s = "parc.iterate"(%limit) ({
  ^bb0(%k: index):
    %old = "parc.previous"(%x) {name = "x"} : (tensor<4xf32>) -> tensor<4xf32>
    "parc.next"(%y) {name = "x"} : (tensor<5xf32>) -> ()
    "parc.change"(%z) : (f32) -> ()
  }, {
  }) {name = "cell", solver = "jacobi", tolerance = 1.0e-6 : f64} : (index) -> !parc.solution
  return
}

// -----

func.func @otherwise(%limit: index, %x: tensor<4xf32>, %y: tensor<5xf32>, %z: f32, %n: i32) {
  // expected-error @+1 {{expects all of its arrays to be given, where they are computed otherwise}}
  %s = "parc.iterate"(%limit) ({
  ^bb0(%k: index):
    %old = "parc.previous"(%x) {name = "x"} : (tensor<4xf32>) -> tensor<4xf32>
    "parc.next"(%old) {name = "x"} : (tensor<4xf32>) -> ()
    "parc.change"(%z) : (f32) -> ()
  }, {
    "parc.next"(%y) {name = "y"} : (tensor<5xf32>) -> ()
  }) {name = "cell", solver = "jacobi", tolerance = 1.0e-6 : f64} : (index) -> !parc.solution
  return
}

// -----

func.func @start(%limit: index, %x: tensor<4xf32>, %y: tensor<5xf32>, %z: f32, %n: i32) {
  %s = "parc.iterate"(%limit) ({
  ^bb0(%k: index):
    // expected-error @+1 {{expects a ranked tensor and a result of its type, got tensor<4xf32> and tensor<5xf32>}}
    %old = "parc.previous"(%x) {name = "x"} : (tensor<4xf32>) -> tensor<5xf32>
    "parc.next"(%old) {name = "x"} : (tensor<5xf32>) -> ()
    "parc.change"(%z) : (f32) -> ()
  }, {
  }) {name = "cell", solver = "jacobi", tolerance = 1.0e-6 : f64} : (index) -> !parc.solution
  return
}

// -----

func.func @change(%limit: index, %x: tensor<4xf32>, %y: tensor<5xf32>, %z: f32, %n: i32) {
  %s = "parc.iterate"(%limit) ({
  ^bb0(%k: index):
    %old = "parc.previous"(%x) {name = "x"} : (tensor<4xf32>) -> tensor<4xf32>
    "parc.next"(%old) {name = "x"} : (tensor<4xf32>) -> ()
    // expected-error @+1 {{expects a number of type f32 or f64, got i32}}
    "parc.change"(%n) : (i32) -> ()
  }, {
  }) {name = "cell", solver = "jacobi", tolerance = 1.0e-6 : f64} : (index) -> !parc.solution
  return
}

// -----

func.func @unknown_array(%limit: index, %x: tensor<4xf32>, %y: tensor<5xf32>, %z: f32, %n: i32) {
  %s = "parc.iterate"(%limit) ({
  ^bb0(%k: index):
    %old = "parc.previous"(%x) {name = "x"} : (tensor<4xf32>) -> tensor<4xf32>
    "parc.next"(%old) {name = "x"} : (tensor<4xf32>) -> ()
    "parc.change"(%z) : (f32) -> ()
  }, {
  }) {name = "cell", solver = "jacobi", tolerance = 1.0e-6 : f64} : (index) -> !parc.solution
  // expected-error @+1 {{names "y", which is no array of the iteration}}
  %y0 = "parc.iterated"(%s) {name = "y"} : (!parc.solution) -> tensor<4xf32>
  return
}

// -----

func.func @iterated_type(%limit: index, %x: tensor<4xf32>, %y: tensor<5xf32>, %z: f32, %n: i32) {
  %s = "parc.iterate"(%limit) ({
  ^bb0(%k: index):
    %old = "parc.previous"(%x) {name = "x"} : (tensor<4xf32>) -> tensor<4xf32>
    "parc.next"(%old) {name = "x"} : (tensor<4xf32>) -> ()
    "parc.change"(%z) : (f32) -> ()
  }, {
  }) {name = "cell", solver = "jacobi", tolerance = 1.0e-6 : f64} : (index) -> !parc.solution
  // expected-error @+1 {{has a type other than that of "x": tensor<4xf32>}}
  %y0 = "parc.iterated"(%s) {name = "x"} : (!parc.solution) -> tensor<5xf32>
  return
}
