//go:build tools

// Package traefik names the program that `make traefik-bin` builds, so that go.sum pins all it is made of.
package traefik

import _ "github.com/traefik/traefik/v3/cmd/traefik"
