module hushpod.dev/cluster/vault

go 1.24.0

// Only what is built is named: Vault's full tag set needs modules that no proxy
// serves, so that this file cannot be tidied, and the checksums of all that
// Vault might import would be a third of a megabyte. Versions still follow from
// Vault's own go.mod, checksums from the public database.
require github.com/hashicorp/vault v1.19.5

tool (
	github.com/hashicorp/vault
	github.com/hashicorp/vault/plugins/database/postgresql/postgresql-database-plugin
)

replace (
	// Vault's own replacements, which a dependency's go.mod does not pass on; its
	// local directories become the published modules that it builds against.
	github.com/99designs/keyring => github.com/Jeffail/keyring v1.2.2
	github.com/hashicorp/vault/api => github.com/hashicorp/vault/api v1.16.0
	github.com/hashicorp/vault/sdk => github.com/hashicorp/vault/sdk v0.17.0
	github.com/ma314smith/signedxml v1.1.1 => github.com/moov-io/signedxml v1.1.1
)
