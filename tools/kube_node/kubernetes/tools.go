//go:build tools

// Package kubernetes names the programs of a node that `make node-bin` builds, so that go.sum pins all they are made of.
package kubernetes

import (
	_ "k8s.io/kubernetes/cmd/kube-proxy"
	_ "k8s.io/kubernetes/cmd/kubelet"
)
