# What the guest does when it has booted. The tests run as its user and as root, in a cgroup that is theirs to divide as the unit's is the runner's;
# those of the service itself run as an administrator would type them. The last line is the sum.
cd /plumule || exit 1
chown -R plumule: /plumule
PATH=/plumule/node_modules/.bin:$PATH
export PATH CI=true PLUMULE_TEST_VM=1
stty -F /dev/ttyS1 -onlcr
echo "Linux $(uname -r), $(systemctl --version | head -n 1), $(podman --version), $(docker --version)"

# Words: whom to run as, the project of vitest, files.
tests() {
  user=$1 project=$2
  shift 2
  [ "$#" -gt 0 ] || return 0
  echo "— as $user: $*"
  set -- node node_modules/vitest/vitest.mjs run --project "$project" \
    --reporter=default --reporter=./scripts/plain-reporter.mjs "$@"
  if [ "$project" = unit ]; then
    set -- systemd-run --quiet --wait --pipe --uid="$user" -p Delegate=yes -p DelegateSubgroup=runner \
      --working-directory=/plumule -E PATH="$PATH" -E CI -E PLUMULE_TEST_VM -E HOME="$(getent passwd "$user" | cut -d: -f6)" "$@"
  fi
  "$@" 2>&1 | tee "/tmp/said-$user-$project"
}

of_service=$(grep '^test/vm/' wanted)
of_unit=$(grep -v '^test/vm/' wanted)
# shellcheck disable=SC2086
{
  tests plumule unit $of_unit
  tests root unit $of_unit
  tests root vm $of_service
}
# A run that ended without its line has failed.
cat /tmp/said-* | awk -v runs="$(ls /tmp/said-* | wc -l)" '
  /^[0-9]+ passed, [0-9]+ failed/ { passed += $1; failed += $3; skipped += $5; seen += 1 }
  END { printf "\n%d passed, %d failed, %d skipped\n", passed, failed + runs - seen, skipped }'
