module wan22.dev/tools/kube_node/pause

go 1.24.0
