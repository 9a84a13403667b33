//go:build tools

// Package kube names the programs that `make kube-bin` builds, so that go.sum pins all that they are made of.
package kube

import (
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kube-controller-manager"
	_ "k8s.io/kubernetes/cmd/kube-scheduler"
)
