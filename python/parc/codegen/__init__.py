"""CPU code generation: from an equation's body to one vectorised function (`cell` -> `packing`, `kernel`)."""
