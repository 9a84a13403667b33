//go:build tools

// Package certmanager names the programs that `make cert-manager-bin` builds, so that go.sum pins all they are made of.
package certmanager

import (
	_ "github.com/cert-manager/cert-manager/cmd/cainjector"
	_ "github.com/cert-manager/cert-manager/cmd/controller"
	_ "github.com/cert-manager/cert-manager/cmd/webhook"
)
