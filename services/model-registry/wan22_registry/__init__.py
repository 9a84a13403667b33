"""The model registry: immutable versions of models as content-addressed blobs in an OCI image layout."""
