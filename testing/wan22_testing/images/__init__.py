"""Container images of a working tree, made by buildah without a daemon: the source, the build, what is inside."""
