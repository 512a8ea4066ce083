# Checks one site before it is installed, together with the includes that will
# be installed beside it, in a configuration of its own.
#   check-site SITE SHARED POLICY TLS PROXY TOLERANT
# SITE is a file, SHARED, POLICY, TLS and PROXY are the includes in base64. With
# TOLERANT = yes (--check) whatever an earlier step would have brought may be
# missing: Apache itself, a module, its key pair, or the key pair of the site.
set -eu
site=$1 shared=$2 policy=$3 tls=$4 proxy=$5 tolerant=$6
pairs=$(sed -n 's/^ *SSL\(CA\)\{0,1\}Certificate\(Key\)\{0,1\}File //p' "$site" | sort -u)

if [ "$tolerant" = yes ]; then
    command -v apache2 >/dev/null || exit 0
    case $(echo "$shared" | base64 -d) in
        *mod_qos.so*) [ -e /usr/lib/apache2/modules/mod_qos.so ] || exit 0 ;;
    esac
    for file in $pairs /etc/ssl/private/ssl-cert-snakeoil.key; do
        [ -e "$file" ] || exit 0
    done
fi

directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
mkdir "$directory/snippets"
# A here document, because the caller replaces a printf format by the site's path.
write() {
    base64 -d >"$directory/$1" <<END
$2
END
}
write shared.conf "$shared"
write snippets/flask-policy.conf "$policy"
write snippets/flask-tls.conf "$tls"
write snippets/flask-proxy.conf "$proxy"
# mod_qos of Debian 12 cannot be loaded as its package does it; shared.conf can.
for file in /etc/apache2/mods-enabled/*.load /etc/apache2/mods-enabled/*.conf; do
    case $file in
        */qos.load) ;;
        *) echo "IncludeOptional $file" ;;
    esac
done >"$directory/modules.conf"
cat >"$directory/apache2.conf" <<END
ServerRoot $directory
DefaultRuntimeDir $directory
PidFile $directory/apache2.pid
ErrorLog /dev/stderr
User www-data
Group www-data
Include modules.conf
Listen 80
Include shared.conf
Include $site
END
set +u
. /etc/apache2/envvars
set -u
said=$(apache2 -t -f "$directory/apache2.conf" 2>&1) || {
    echo "$said" >&2
    exit 1
}

# Apache looks at them only after a reload, and would end.
certificate=$(sed -n 's/^ *SSLCertificateFile //p' "$site" | sort -u)
key=$(sed -n 's/^ *SSLCertificateKeyFile //p' "$site" | sort -u)
if [ "$(openssl x509 -in "$certificate" -noout -pubkey)" != "$(openssl pkey -in "$key" -pubout)" ]; then
    echo "$key is not the key of $certificate" >&2
    exit 1
fi
