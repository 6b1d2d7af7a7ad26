#!/usr/bin/env bash
# What secretweave does to a rendered chart: the plan, the difference with every value masked, and the real run, of
# which only the count of Secrets is shown. Run by `make demo`; needs `secretweave` on the PATH.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

# The file store wants its file private, and Git keeps no such mode.
umask 077
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$here/config.yaml" "$here/secrets.yaml" "$work/"
export SECRETWEAVE_CONFIG=$work/config.yaml SECRETWEAVE_NAMESPACE=shop

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
[ -t 1 ] || say() { printf '\n== %s\n' "$*"; }

if command -v helm >/dev/null; then
  say "helm template shop $here/chart"
  helm template shop "$here/chart" --namespace shop >"$work/rendered.yaml"
else
  say "Helm is not on the PATH: its output is taken from examples/shop/rendered.yaml"
  cp "$here/rendered.yaml" "$work/rendered.yaml"
fi
echo "$(grep -c '^kind:' "$work/rendered.yaml") objects"

say "secretweave plan: what would be read, and where it would go"
secretweave plan "$work/rendered.yaml"

say "secretweave render --output redacted: what would change, every value masked, no store contacted"
secretweave render --output redacted "$work/rendered.yaml" >"$work/redacted.yaml"
diff -u --label rendered --label redacted "$work/rendered.yaml" "$work/redacted.yaml" || [ $? = 1 ]

say "secretweave: the real run"
secretweave <"$work/rendered.yaml" >"$work/final.yaml"
echo "$(grep -c '^kind: Secret$' "$work/final.yaml") Secrets came out, with their values; they are not shown."
