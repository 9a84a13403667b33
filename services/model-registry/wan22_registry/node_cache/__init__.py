"""The node cache: keeps model versions in a node's cache folder before the workers there ask for them."""
