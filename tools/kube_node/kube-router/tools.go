//go:build tools

// Package kuberouter names the program that `make node-bin` builds, so that go.sum pins all it is made of.
package kuberouter

import _ "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router"
