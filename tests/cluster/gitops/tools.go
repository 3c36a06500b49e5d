//go:build tools

// Package gitops pins the programs that the tests of the chart and of the GitOps tools' health checks use.
package gitops

import (
	_ "helm.sh/helm/v3/cmd/helm"
	_ "helm.sh/helm/v4/cmd/helm"
)
