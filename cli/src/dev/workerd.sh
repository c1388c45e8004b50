#!/bin/sh
# Starts workerd, whose path is in WORKERD, so that it dies with the process that started it: an engine that outlived a killed broker would
# go on writing to the databases that the next one opens. Without setpriv(1) (util-linux) it is started as it is.
if command -v setpriv >/dev/null 2>&1; then
  exec setpriv --pdeathsig KILL -- "$WORKERD" "$@"
fi
exec "$WORKERD" "$@"
