// Command coredns is CoreDNS with the few plugins that a cluster's names take.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
)

func main() {
	// The order in which plugins see a question.
	dnsserver.Directives = []string{"ready", "errors", "hosts", "kubernetes"}
	coremain.Run()
}
