# Checks one site before it is installed, together with the includes that will
# be installed beside it, in a configuration of its own.
#   check-site SITE HTTP POLICY PROXY TOLERANT
# SITE is a file, HTTP, POLICY and PROXY are the texts of the includes. With
# TOLERANT = yes (--check) whatever an earlier step would have brought may be
# missing: nginx itself, a module, or a certificate of the site.
set -eu
site=$1 http=$2 policy=$3 proxy=$4 tolerant=$5

if [ "$tolerant" = yes ]; then
    command -v nginx >/dev/null || exit 0
    for file in $(sed -n 's/^ *access_log \([^ ]*\) .*/\1/p' "$site"); do
        [ -d "${file%/*}" ] || exit 0
    done
    [ -e /usr/share/nginx/modules-available/mod-http-headers-more-filter.conf ] || exit 0
    case $policy in
        *brotli_static*) [ -e /usr/share/nginx/modules-available/mod-http-brotli-static.conf ] || exit 0 ;;
    esac
    for file in $(sed -n 's/^ *ssl_\(client_\)\{0,1\}certificate\(_key\)\{0,1\} \(.*\);$/\3/p' "$site"); do
        [ -e "$file" ] || exit 0
    done
fi

directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
mkdir "$directory/snippets"
# Here documents, because the caller replaces a printf format by the site's path.
write() {
    cat >"$directory/$1" <<END
$2
END
}
write http.conf "$http"
write snippets/flask-policy.conf "$policy"
write snippets/flask-proxy.conf "$proxy"
cat >"$directory/nginx.conf" <<END
include /etc/nginx/modules-enabled/*.conf;
pid $directory/nginx.pid;
error_log stderr;
events {}
http {
    include http.conf;
    include $site;
}
END
umask 027
nginx -t -q -c "$directory/nginx.conf"
