//go:build tools

// Package release pins the programs that check the workflows of GitHub and that publish a release.
package release

import (
	_ "github.com/google/go-containerregistry/cmd/crane"
	_ "github.com/rhysd/actionlint/cmd/actionlint"
	_ "github.com/sigstore/cosign/v3/cmd/cosign"
)
