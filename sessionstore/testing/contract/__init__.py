"""The contract that every backend keeps, as test classes to inherit."""
