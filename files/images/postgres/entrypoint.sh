#!/bin/bash
# Our own implementation of the official postgres image's documented interface, so that a host can change from one
# image to the other and keep its data: POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB, POSTGRES_INITDB_ARGS,
# POSTGRES_INITDB_WALDIR, POSTGRES_HOST_AUTH_METHOD (the first four also as <NAME>_FILE), PGDATA, and *.sh, *.sql,
# *.sql.gz, *.sql.xz, *.sql.zst in /docker-entrypoint-initdb.d, run once on an empty data folder.
set -Eeo pipefail

fail() {
  printf 'docker-entrypoint: %s\n' "$@" >&2
  exit 1
}

# The value of a variable, or of the file that <NAME>_FILE names. Both at once is a mistake.
setting() {
  local name=$1 file_name=$1_FILE default=${2-} value
  [[ -z ${!name-} || -z ${!file_name-} ]] || fail "$name and $file_name are both set: set one of them"
  if [[ -n ${!file_name-} ]]; then
    [[ -r ${!file_name} ]] || fail "$file_name names ${!file_name}, which cannot be read"
    value=$(<"${!file_name}")
  else
    value=${!name-$default}
  fi
  printf -v "$name" '%s' "$value"
  unset "$file_name"
}

own_folders() {
  mkdir -p "$PGDATA" /run/postgresql
  chmod 0700 "$PGDATA" || true
  chmod 03775 /run/postgresql || true
  if [[ -n ${POSTGRES_INITDB_WALDIR-} ]]; then
    mkdir -p "$POSTGRES_INITDB_WALDIR"
    chmod 0700 "$POSTGRES_INITDB_WALDIR"
  fi
  if [[ $(id -u) == 0 ]]; then
    find "$PGDATA" /run/postgresql ${POSTGRES_INITDB_WALDIR:+"$POSTGRES_INITDB_WALDIR"} \! -user postgres -exec chown postgres '{}' +
  fi
}

# initdb needs a name for the uid it runs as; an arbitrary `user:` has none.
lend_a_name() {
  local uid
  uid=$(id -u)
  getent passwd "$uid" >/dev/null && return
  NSS_WRAPPER_PASSWD=$(mktemp) NSS_WRAPPER_GROUP=$(mktemp)
  LD_PRELOAD=$(find /usr/lib -name libnss_wrapper.so -print -quit)
  export LD_PRELOAD NSS_WRAPPER_PASSWD NSS_WRAPPER_GROUP
  printf 'postgres:x:%s:%s:PostgreSQL:%s:/bin/false\n' "$uid" "$(id -g)" "$PGDATA" >"$NSS_WRAPPER_PASSWD"
  printf 'postgres:x:%s:\n' "$(id -g)" >"$NSS_WRAPPER_GROUP"
}

make_cluster() {
  lend_a_name
  local options=(--username="$POSTGRES_USER")
  [[ -z ${POSTGRES_INITDB_WALDIR-} ]] || options+=(--waldir "$POSTGRES_INITDB_WALDIR")
  # POSTGRES_INITDB_ARGS may hold quoted arguments, hence the eval
  eval 'initdb "${options[@]}" --pwfile=<(printf "%s\n" "$POSTGRES_PASSWORD") '"$POSTGRES_INITDB_ARGS"
  local method=${POSTGRES_HOST_AUTH_METHOD:-$(postgres -C password_encryption -D "$PGDATA")}
  printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"
}

client() {
  PGHOST='' PGHOSTADDR='' PGPASSWORD=$POSTGRES_PASSWORD \
    psql -v ON_ERROR_STOP=1 --no-psqlrc --no-password --username "$POSTGRES_USER" "$@"
}

run_init_scripts() {
  local file
  for file in /docker-entrypoint-initdb.d/*; do
    case $file in
      *.sh) if [[ -x $file ]]; then "$file"; else source "$file"; fi ;;
      *.sql) client --dbname "$POSTGRES_DB" -f "$file" ;;
      *.sql.gz) gunzip -c "$file" | client --dbname "$POSTGRES_DB" ;;
      *.sql.xz) xzcat "$file" | client --dbname "$POSTGRES_DB" ;;
      *.sql.zst) zstd -dc "$file" | client --dbname "$POSTGRES_DB" ;;
    esac
  done
}

main() {
  # options alone mean the server
  [[ ${1-} != -* ]] || set -- postgres "$@"
  [[ ${1-} == postgres ]] || exec "$@"
  local argument
  for argument; do
    case $argument in -\? | --help | --describe-config | -V | --version) exec "$@" ;; esac
  done

  setting POSTGRES_PASSWORD
  setting POSTGRES_USER postgres
  setting POSTGRES_DB "$POSTGRES_USER"
  setting POSTGRES_INITDB_ARGS

  own_folders
  if [[ $(id -u) == 0 ]]; then
    export POSTGRES_USER POSTGRES_PASSWORD POSTGRES_DB POSTGRES_INITDB_ARGS
    exec gosu postgres "${BASH_SOURCE[0]}" "$@"
  fi

  if [[ ! -s $PGDATA/PG_VERSION ]]; then
    if [[ -z $POSTGRES_PASSWORD && ${POSTGRES_HOST_AUTH_METHOD-} != trust ]]; then
      fail 'the data folder is empty and there is no password for the superuser:' \
        'set POSTGRES_PASSWORD_FILE (or POSTGRES_PASSWORD)'
    fi
    make_cluster
    # local connections only, until the initial scripts are through
    pg_ctl -D "$PGDATA" -o "-c listen_addresses='' -p ${PGPORT:-5432}" -w start
    if [[ $POSTGRES_DB != postgres ]]; then
      client --dbname postgres --set db="$POSTGRES_DB" <<<'CREATE DATABASE :"db";'
    fi
    export PGUSER=${PGUSER:-$POSTGRES_USER} PGDATABASE=${PGDATABASE:-$POSTGRES_DB}
    run_init_scripts
    pg_ctl -D "$PGDATA" -m fast -w stop
  fi
  # the server has no use for it, and `docker exec` must not find it
  unset POSTGRES_PASSWORD LD_PRELOAD NSS_WRAPPER_PASSWD NSS_WRAPPER_GROUP
  exec "$@"
}

main "$@"
