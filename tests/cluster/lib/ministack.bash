# ministack, with IAM on.
# shellcheck shell=bash

MINISTACK_VERSION=1.5.33
MINISTACK_PORT=5444
# The environment is in the cache: it holds paths of its own place, so it is never moved.
MINISTACK=$CACHE/ministack-$MINISTACK_VERSION

ministack_answers() {
  curl -fsS "http://127.0.0.1:$MINISTACK_PORT/_ministack/health" | grep -F '"auth": "enabled"'
}

ministack_up() {
  python_environment "$MINISTACK" "ministack==$MINISTACK_VERSION"
  mkdir -p "$STATE/ministack"
  # The account and the administrator's key are those of the contract suite; it makes the roles.
  start ministack env AUTH=true MINISTACK_ACCOUNT_ID=123456789012 MINISTACK_REGION=eu-west-1 \
    AWS_ACCESS_KEY_ID=AKIAADMINCANARY AWS_SECRET_ACCESS_KEY=canary-admin-secret SERVICES=secretsmanager,ssm,sts,iam \
    BIND_HOST=127.0.0.1 GATEWAY_PORT="$MINISTACK_PORT" TMPDIR="$STATE/ministack" "$MINISTACK/bin/ministack"
  started ministack 60 ministack_answers
}

ministack_env() {
  echo "export MINISTACK_ENDPOINT=http://127.0.0.1:$MINISTACK_PORT"
}
