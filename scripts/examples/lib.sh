# What the examples share. Each is run by `scripts/check-interop NAME`, which starts a verifier and a machine with a software TPM,
# and sets the variables INTEROP_*; with your own, set them yourself: the verifier's URL, its CA, the attester's command, a
# relying party's name and token, and the audience that its tokens have.
: "${INTEROP_URL:?start me by scripts/check-interop}" "${INTEROP_CA:?}" "${INTEROP_ATTESTER:?}" "${INTEROP_PARTY:?}" "${INTEROP_SECRET:?}" \
    "${INTEROP_AUDIENCE:?}"

ok() { printf '     ok %s\n' "$1"; }
wrong() { echo "$(basename "$0"): $1" >&2; exit 1; }

# A token of this machine for the service, bound to a key of its TPM.
token() { $INTEROP_ATTESTER token --audience "$INTEROP_AUDIENCE" "$@"; }

# What the service hears of a token (RFC 7662).
introspect() {
    curl -sS --cacert "$INTEROP_CA" -u "$INTEROP_PARTY:$INTEROP_SECRET" --data-urlencode "token=$1" "$INTEROP_URL/oauth2/introspect"
}
is_active() { grep -q '"active":true' <<<"$(introspect "$1")"; }
