#!/usr/bin/env bash
# Builds stand-ins for the images that docker-compose.yml and the Dockerfiles name, on a Debian
# that reaches its package sources but no registry of images. They show that the files are right,
# not what Postgres 17, Redis 7.4 or Mailpit do. What exists is not built again; `docker rmi`
# removes it. It needs docker, debootstrap, Go and root.
set -euo pipefail
cd "$(dirname "$0")/../.."
export DOCKER_BUILDKIT=0 # The classic builder finds local images without a registry.
have() { docker image inspect "headgate-standin/$1" >/dev/null 2>&1; }
build() { nice docker build -q --network host -t "headgate-standin/$1" "$work/$1" >/dev/null && echo "built headgate-standin/$1"; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work"/{postgres,redis,static,mailpit,golang}

if ! have debian; then
	command -v debootstrap >/dev/null || { echo "debootstrap is missing: apt-get install debootstrap" >&2; exit 1; }
	mirror=$(apt-cache policy | sed -n 's#.* \(https\?://[^ ]*\) bookworm/main .*#\1#p' | head -n 1)
	nice debootstrap --variant=minbase --include=ca-certificates,tzdata,busybox bookworm "$work/root" "$mirror" >"$work/log" || { tail "$work/log"; exit 1; }
	# This machine's certificates and proxies lead to its package sources.
	cp /etc/ssl/certs/ca-certificates.crt "$work/root/etc/ssl/certs/"
	cp /etc/apt/apt.conf.d/*proxy* "$work/root/etc/apt/apt.conf.d/" 2>/dev/null || true
	tar -C "$work/root" --numeric-owner -c . | docker import - headgate-standin/debian >/dev/null
	rm -rf "$work/root"
	echo "built headgate-standin/debian"
fi

install='apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends'
have redis || {
	cat >"$work/redis/Dockerfile" <<-END
		FROM headgate-standin/debian
		RUN groupadd -r -g 1000 redis && useradd -r -u 999 -g redis -d /data redis
		RUN $install redis-server >/dev/null && mkdir -p /data && chown redis:redis /data
		VOLUME /data
		WORKDIR /data
	END
	build redis
}

# The entrypoint initializes the data as that of the official image does.
have postgres || {
	cat >"$work/postgres/entrypoint.sh" <<-'END'
		#!/bin/bash
		set -e
		if [ "$(id -u)" = 0 ]; then
			chown -R postgres "$PGDATA" /var/run/postgresql
			exec gosu postgres "$0" "$@"
		fi
		if [ ! -s "$PGDATA/PG_VERSION" ]; then
			initdb -U postgres --pwfile=<(echo "${POSTGRES_PASSWORD:?}") -D "$PGDATA"
			echo "listen_addresses = '*'" >>"$PGDATA/postgresql.conf"
			echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
			pg_ctl -D "$PGDATA" -o "-c listen_addresses=''" -w start
			pg_ctl -D "$PGDATA" -m fast -w stop
		fi
		exec "$@"
	END
	chmod 755 "$work/postgres/entrypoint.sh"
	cat >"$work/postgres/Dockerfile" <<-END
		FROM headgate-standin/debian
		RUN groupadd -r -g 70 postgres && useradd -r -u 70 -g postgres -d /var/lib/postgresql postgres
		RUN mkdir -p /etc/postgresql-common && echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
		RUN $install postgresql-15 gosu >/dev/null
		ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/15/bin LANG=C.UTF-8 PGDATA=/var/lib/postgresql/data
		RUN mkdir -p "\$PGDATA" && chown postgres "\$PGDATA" && chmod 3777 /var/run/postgresql
		COPY entrypoint.sh /usr/local/bin/docker-entrypoint.sh
		VOLUME /var/lib/postgresql/data
		ENTRYPOINT ["docker-entrypoint.sh"]
		STOPSIGNAL SIGINT
		CMD ["postgres"]
	END
	build postgres
}

have static || {
	cat >"$work/static/Dockerfile" <<-END
		FROM headgate-standin/debian AS base
		RUN mkdir -p /x/etc/ssl/certs /x/usr/share /x/tmp && chmod 1777 /x/tmp \\
			&& cp -r /usr/share/zoneinfo /x/usr/share/ && cp /etc/ssl/certs/ca-certificates.crt /x/etc/ssl/certs/ \\
			&& echo 'nonroot:x:65532:65532:nonroot:/tmp:/sbin/nologin' >/x/etc/passwd && echo 'nonroot:x:65532:' >/x/etc/group
		FROM scratch
		COPY --from=base /x /
		USER 65532
	END
	build static
}

# The mailbox of make run, at Mailpit's ports.
have mailpit || {
	(cd deploy/local && GOWORK=off CGO_ENABLED=0 GOFLAGS=-buildvcs=false nice go build -trimpath -o "$work/mailpit/mailpit" ./internal/mailbox/standin)
	printf 'FROM scratch\nCOPY mailpit /mailpit\nENTRYPOINT ["/mailpit"]\n' >"$work/mailpit/Dockerfile"
	build mailpit
}

have golang || {
	cp -r "$(go env GOROOT)" "$work/golang/go"
	cat >"$work/golang/Dockerfile" <<-END
		FROM headgate-standin/debian
		COPY go /usr/local/go
		ENV GOPATH=/go GOTOOLCHAIN=local PATH=/usr/local/go/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \\
			GOPROXY=$(go env GOPROXY) GONOSUMDB=$(go env GONOSUMDB) GOSUMDB=$(go env GOSUMDB)
	END
	build golang
}
