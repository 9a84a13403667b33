// Command coredns is CoreDNS with the plugins that a cluster's DNS needs, and no cloud's.
package main

import (
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/reload"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
)

func main() {
	// CoreDNS asks its plugins in this order, whatever a Corefile's.
	dnsserver.Directives = []string{"reload", "errors", "health", "ready", "cache", "kubernetes"}
	coremain.Run()
}
