#!/usr/bin/env bash
# Downloads Swagger UI from npm: the given version, or the one in
# swagger-ui/vendor.json. Large files are stored compressed, as they are served.
set -euo pipefail
cd "$(dirname "$0")/swagger-ui"
package=swagger-ui-dist
version=${1:-$(sed -n 's/.*"version": "\(.*\)".*/\1/p' vendor.json)}
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
(cd "$fresh" && npm pack --silent "$package@$version" >/dev/null && tar xzf ./*.tgz --strip-components 1)
rm -f ./*
files=(LICENSE NOTICE swagger-ui-bundle.js swagger-ui-bundle.js.LICENSE.txt swagger-ui.css)
{
	printf '{\n  "package": "%s",\n  "version": "%s",\n  "sha256": {\n' "$package" "$version"
	for f in "${files[@]}"; do
		printf '    "%s": "%s"' "$f" "$(sha256sum "$fresh/$f" | cut -d ' ' -f 1)"
		[ "$f" = "${files[-1]}" ] && echo || echo ,
	done
	printf '  }\n}\n'
} >vendor.json
for f in "${files[@]}"; do
	case $f in
	*.js | *.css) gzip -9 -n <"$fresh/$f" >"$f.gz" ;;
	*) cp "$fresh/$f" "$f" ;;
	esac
done
