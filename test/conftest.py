"""What all Python tests share."""

from hypothesis import settings

# The same examples in every run, so that a red test is red for everyone; compiling takes longer than any deadline.
settings.register_profile("parc", deadline=None, derandomize=True, max_examples=25, print_blob=True)
settings.load_profile("parc")
