//go:build tools

// Package keda names the programs that `make keda-bin` builds, so that go.sum pins all they are made of.
package keda

import (
	_ "github.com/kedacore/keda/v2/cmd/adapter"
	_ "github.com/kedacore/keda/v2/cmd/operator"
)
