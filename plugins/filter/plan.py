# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The filter ``flaskworks.server.plan``: what people write, resolved into what the roles take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.flaskworks.server.plugins.plugin_utils.description import (
    DescriptionError,
    Schema,
    read_schema,
)
from ansible_collections.flaskworks.server.plugins.plugin_utils.plan import resolve

DOCUMENTATION = r"""
---
name: plan
author: the flaskworks.server contributors
version_added: 0.1.0
short_description: Resolve the description of Flask apps into a plan
description:
  - Takes C(flask_apps), the list that people write, and returns the plan that the roles take, one list for
    each of them.
  - Everything is checked before a host is touched. All mistakes of a description are reported together,
    each as one sentence that names the app and the way out.
  - This documentation is the reference of an app's description, and the same text validates it. A key that
    does not stand here is refused.
  - Sizes are bytes, or a number with C(k), C(m) or C(g) (powers of 1024). Times are seconds, or a number
    with C(s), C(m) or C(h).
positional: defaults, facts, secrets
options:
  _input:
    description: The apps of a host, C(flask_apps). One app, one name.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - The app's name. It is also the name of its account and group, of its directory below
            O(_input[].root), of its units (C(flask-<name>@<release>)) and of its site file.
          - 1 to 31 lower-case letters, digits and single hyphens, beginning with a letter; not the name of
            an account of the system.
        type: str
        required: true
      domains:
        description:
          - The names under which the app is served. The first is canonical, the others redirect to it.
          - Each domain serves one app, or several that have the same list here and another
            O(_input[].prefix) each. A name outside ASCII is written in its C(xn--) form.
          - All but the first may be wildcards, as in V(*.hello.example.org). One of V(acme) needs
            O(_input[].tls.dns).
        type: list
        elements: str
        required: true
      prefix:
        description:
          - The path below which the app is served, as in V(/reports). It gets what is below it without the
            prefix, and the prefix in C(X-Forwarded-Prefix), of which Werkzeug's ProxyFix (C(x_prefix)) makes
            C(SCRIPT_NAME), so that C(url_for) is right.
          - O(_input[].static) and O(_input[].health) are told without it.
          - Of several apps on a domain, the one at V(/), or else the first, owns the site. Its certificate,
            headers, pages, users, networks and O(_input[].raw) are those of all; the others leave these keys
            away or say the same. What nobody serves is 404.
        type: str
        default: /
      source:
        description:
          - Where the code comes from. Exactly one of O(_input[].source.path), O(_input[].source.git),
            O(_input[].source.archive) and O(_input[].source.package).
          - It is fetched once in a run, on the controller, with the controller's keys; no server ever sees
            them.
        type: dict
        required: true
        suboptions:
          path:
            description:
              - A directory on the controller, or a wheel (a file that ends in C(.whl)).
              - Files that Git would ignore are left out. Write C({{ inventory_dir }}/…) to be independent
                of the working directory.
            type: str
          git:
            description: Address of a Git repository.
            type: str
          version:
            description: Branch, tag or commit of O(_input[].source.git). The remote's default branch when
              not given.
            type: str
          verify:
            description:
              - A file on the controller with the public keys of those who may release, OpenPGP or SSH (an
                C(allowed_signers) or C(.pub) file). The tag of O(_input[].source.version), or else its
                commit, must be signed by one of them.
              - A tag must have been signed under its own name. A key that has expired does not count.
            type: str
          archive:
            description:
              - A tar (plain, C(.gz), C(.bz2) or C(.xz)) or zip, by its path on the controller or its
                C(https://) address.
              - When all of it is below one directory, that directory counts as the top of the source.
              - Taken as it is, whatever a C(.gitignore) in it says. At most 512 MiB, 100,000 files.
            type: str
          package:
            description:
              - One version of a package, as in V(hello==1.2), or the path or C(https://) address of a wheel.
              - The wheel is fetched by the controller's pip and must fit every platform. A package without
                one is built from its source distribution, on the controller, which runs its code.
              - A version that was fetched is kept and not asked for again.
              - What the package depends on is installed by the host, from the index of the host.
              - O(_input[].static) names directories of the installed packages, as in C(hello/static).
            type: str
          index:
            description:
              - Address of the index that has O(_input[].source.package), or a directory of packages on the
                controller. No other index is asked for it.
              - When not given, the index that the controller's pip is set to.
            type: str
          checksum:
            description:
              - What V(sha256sum) prints for O(_input[].source.archive) or O(_input[].source.package), as in
                V(sha256:9f86d0…). Required for the address of a file.
              - A file that was downloaded is kept on the controller by its checksum and not asked for again.
            type: str
          subdirectory:
            description: The directory inside the source that holds the app, for repositories with several.
            type: str
      wsgi:
        description:
          - What gunicorn serves, V(module:variable) or V(module:factory(\)).
          - The module is looked for in the source and in its directory C(src).
        type: str
        required: true
      lock:
        description:
          - The file inside the source that lists the dependencies.
            When not given, the first of C(requirements.lock), C(requirements.txt) and C(pyproject.toml)
              (C(project.dependencies)).
          - Hashes are demanded when every requirement in it has one.
        type: str
      interpreter:
        description: Path of the Python interpreter on the host.
        type: str
        default: /usr/bin/python3
      gunicorn:
        description: Versions of gunicorn that are installed when the lock file does not bring one.
        type: str
        default: ">=23,<28"
      health:
        description:
          - What proves a release healthy, before any visitor reaches it. A path, or a dictionary.
          - A path is short for O(_input[].health.path).
          - It is asked with the headers that the proxy sends. An answer counts only when it comes from the
            processes of the new release.
        type: raw
        default: /
        suboptions:
          path:
            description: Path and query that are asked on the private socket of a release.
            type: str
            required: true
          status:
            description: The status that means healthy.
            type: int
            default: 200
          timeout:
            description:
              - Time within which a release must have become healthy. With the default, the deploy of one that
                never answers fails in less than half a minute.
            type: str
            default: 25s
          interval:
            description: Seconds between two probes.
            type: float
            default: 0.05
          successes:
            description: How many healthy answers in a row are demanded.
            type: int
            default: 3
      liveness: &liveness
        description:
          - Has the host ask the app's O(_input[].health) all the time, and restart its service when it does
            not answer as it should several times in a row. V(true), or a dictionary; off when not given.
            V(false) switches off what the defaults say.
          - gunicorn itself ends a worker that stands still, but not one whose requests all hang. For those
            nginx answers 504 and Apache 502, and nobody frees the threads.
          - The socket stays, so that what connects meanwhile waits and is answered. A restart that has not
            helped is repeated after twice the time, up to an hour. None happens while a deploy is at work,
            nor before a service had the time that O(_input[].health.timeout) gives it.
          - Choose a O(_input[].health) that asks nothing of others. A database that is away is no reason for
            a restart.
        type: raw
        suboptions:
          interval:
            description: Time between two questions.
            type: str
            default: 10s
          timeout:
            description: Time for an answer. It is also the time that the requests of a service get to end
              before its restart kills it.
            type: str
            default: 5s
          failures:
            description: How many wrong answers in a row are too many.
            type: int
            default: 3
      static:
        description:
          - Directories of the source that the proxy serves itself, by the URL below which it does, as in
            C(/static/). What is no file there, nor in the release before, is answered by the app.
          - A value that begins with a slash is a directory of the host instead, whose files the proxy's
            account C(www-data) must be able to read. No release has it. Symbolic links in it are followed
            only to what belongs to the owner of the link.
          - Browsers keep a file for a year when its name carries a hash of its content, as in
            C(app.3f2a91bc.js), and ask again for all others.
          - A URL begins and ends with a slash.
        type: dict
        default: {}
      worker_class: &worker_class
        description:
          - How a worker handles requests. V(gthread) suits most apps.
          - V(sync) takes one request at a time. V(gevent) suits apps that wait much, and needs libraries
            that cooperate.
        type: str
        choices: [gthread, sync, gevent]
        default: gthread
      workers: &workers
        description:
          - Number of worker processes.
          - When not given, one more than the host has cores, at least 2,
            and no more than fit into 60 % of the host's memory, shared evenly among its apps (see
              O(_input[].worker_memory)).
        type: int
      worker_memory: &worker_memory
        description: Memory that one worker needs, without its threads (about 0.1 MB each). A small Flask
          app needs 29 MB (measured).
        type: str
        default: 29m
      threads: &threads
        description: Threads of a worker. Take 4 for an app that computes more than it waits. Only for
          V(gthread), where it is 16 when not given.
        type: int
      connections: &connections
        description: Requests that a worker handles at once. Only for V(gevent), where it is 1000 when not
          given.
        type: int
      max_requests: &max_requests
        description: Number of requests after which a worker is replaced, give or take a tenth, to bound
          what leaks. V(0) is never.
        type: int
        default: 10000
      timeout: &timeout
        description:
          - The longest time that the app may be silent while it answers a request. The proxy answers 504
            after it. An answer that keeps flowing may take longer.
          - The time a release gets to finish its requests and the time after which systemd ends it follow
            from this one.
        type: str
        default: 30s
      resources: &resources
        description:
          - What the app may take of its host, so that it cannot starve the others.
          - C(cpu_weight) holds for all that the app runs together. The other limits hold for each release
            and for each command of a hook by itself, since an old and a new release run side by side during
            a switch. C(docs/operations.md) says how to choose them, and what happens at each.
          - Before anything else of the host, the kernel ends a process of an app when memory is short.
        type: dict
        default: {}
        suboptions:
          memory_max:
            description:
              - Memory at which the kernel ends the largest process, as a rule one worker, which gunicorn
                replaces. A size, or a share of the host's memory as in V(50%).
              - The default number of O(_input[].workers) fits into it when it is a size.
            type: str
            default: 80%
          memory_high:
            description:
              - Memory above which the kernel slows the app down and takes back what it can. A size or a
                share, as O(_input[].resources.memory_max).
              - Off when not given. Without swap, an app that needs more neither answers nor ends.
            type: str
          tasks:
            description: Processes and threads at once. When not given, 4096, or four times what the workers
              need when that is more.
            type: int
          files:
            description: Files and connections that one process may have open at once. When not given, 65536,
              or twice what O(_input[].connections) need when that is more.
            type: int
          cpu_weight:
            description: Share of the processors when these are busy, against 100 of another app. From 1 to
              10000.
            type: int
            default: 100
      request_limit: &request_limit
        description: The largest request body. The proxy answers 413 to a larger one.
        type: str
        default: 10m
      config:
        description:
          - Plain environment variables of the app. They can be read by everyone who can see the plan, so
            secrets belong into C(flask_secrets).
          - Values are strings or numbers. Quote C("on"), C("yes") and C("true").
          - An app is always given C(FORWARDED_HOPS) (the number of proxies whose headers may be believed,
            for Werkzeug's ProxyFix), C(SHARED_DIRECTORY) (where it may keep its data), C(FLASK_RELEASE) (the
            id of the release that runs) and C(PYTHONPATH).
        type: dict
        default: {}
      secrets:
        description:
          - Names that must have a value in C(flask_secrets.<name>). Values never enter the plan.
          - C(SECRET_KEY_FALLBACKS) is a list there, of keys that no longer sign sessions and are still
            believed; the app gets it as JSON. C(playbooks/rotate_secret_key.yml) keeps it.
          - Every name that has a value there reaches the app, also one that is not listed here.
        type: list
        elements: str
        default: [SECRET_KEY]
      secrets_via: &secrets_via
        description:
          - How secrets reach the app.
          - With V(environment), as variables C(NAME). Whatever reads the environment of the app has them, a
            page that shows it after an error included, and so has every program that it starts.
          - With V(credentials), as files that only the app's service can read, and that are gone with it. The
            app gets their paths as variables C(NAME_FILE), and hooks do as well. A deploy goes no further
            when systemd has not given them. A value may have line breaks then.
        type: str
        choices: [environment, credentials]
        default: environment
      needs: &needs
        description:
          - What the app is let do beyond its sandbox. Leave away what you do not know to be needed.
          - V(subprocess) lets it run the programs of the host (what is below C(/usr)), as C(git) or
            C(ffmpeg). Without, it runs its interpreter and its own release only. Never what it could write.
          - V(jit) lets it have memory that is written and executed, and files that are memory only
            (C(memfd_create)), as compilers at run time need (C(numba), C(pypy)), and functions that C calls
            back by C(ctypes) or C(cffi).
          - V(proc) lets it read the figures of the whole host in C(/proc), as C(psutil) does. The processes
            of others stay out of sight.
        type: list
        elements: str
        default: []
      network: &network
        description:
          - What the app may connect to. V(all) is every host, but no multicast and no broadcast.
            V(localhost) is the host itself. V(none) takes the network away; what has a socket in the file
            system, as a local PostgreSQL, is reached nevertheless.
          - A list of networks, as in V([192.0.2.0/24]), is these and nothing else. Names are resolved by a
            name server, so list that, too, or C(127.0.0.53) for systemd-resolved; V(localhost) reaches the
            latter only.
          - An app never listens on a port, whatever stands here. Requests come through the socket that
            systemd made.
        type: raw
        default: all
      keep_releases: &keep_releases
        description: Number of releases that stay on the host. The current and the previous one always stay.
        type: int
        default: 5
      lock_wait: &lock_wait
        description: How long a deploy waits for another one of the same app.
        type: str
        default: 60s
      watch: &watch
        description:
          - Time for which a release is watched after the switch. V(0) does not watch.
          - When its service ends within that time, or three health checks in a row fail, the hosts switch
            back to what served before, the release is marked bad, and the play fails.
          - What served before keeps running for so long, so that the way back is short. C(after_activate)
            runs when the time is over.
        type: str
        default: "0"
      migrate:
        description:
          - A command, or a list of commands, that brings the app's data to where the new release needs them.
            It runs once for each play, on the first host that has the new release, when this is healthy on
            all of them and before any switches. When it fails, none switches.
          - The old release serves on meanwhile, so it must work with the migrated data, too.
          - Hooks run with the account, the sandbox, the variables and in the directory of the new release,
            whose C(venv/bin) is first in the path. systemd splits the line and replaces C($NAME) and
            C(${NAME}); there is no shell.
        type: raw
      before_activate:
        description:
          - A command, or a list, that runs on every host just before the switch. When it fails, no host
            switches.
        type: raw
      after_activate:
        description:
          - A command, or a list, that runs on every host after the switch. When it fails, so does the play,
            and the new release serves on.
        type: raw
      hook_timeout: &hook_timeout
        description: The longest time that one command of a hook may take. It is stopped then, and counts as
          failed.
        type: str
        default: 600s
      tls: &tls
        description: Where the certificate comes from.
        type: dict
        default: {}
        suboptions:
          provider:
            description:
              - V(self_signed) is issued by a certificate authority of the inventory, which lives in C(.tls/)
                in the inventory's directory.
              - V(provided) is a pair that you have.
              - V(acme) is issued by Let's Encrypt or another authority that speaks ACME, for all
                O(_input[].domains), and renewed by the host. Each of them must lead to the host, where the
                authority asks on port 80, or to O(_input[].tls.dns). Until it is issued, a certificate that
                nobody trusts is served.
            type: str
            choices: [self_signed, provided, acme]
            default: self_signed
          email:
            description: For V(acme), where the authority writes to when something is wrong. The first app of
              a host that is registered with an authority decides.
            type: str
          directory:
            description: For V(acme), the address of the authority's directory. Let's Encrypt when not given.
            type: str
          staging:
            description: For V(acme), use the authority on which Let's Encrypt lets people practise. Nobody
              trusts its certificates, and its limits are hard to reach.
            type: bool
            default: false
          root:
            description: For V(acme), the certificate that the server of a private authority is checked
              with, a path on the controller or the PEM text.
            type: str
          profile:
            description: For V(acme), the profile of certificates that is preferred, as in V(shortlived). The
              certbot of Debian 12 cannot ask for one, and says so.
            type: str
          eab:
            description: For V(acme), the external account (RFC 8555, 7.3.4) that some authorities demand.
            type: dict
            suboptions:
              kid:
                description: The key identifier.
                type: str
                required: true
              secret:
                description: Name of the value in C(flask_secrets.<name>) that is the HMAC key, in base64url.
                  The app does not get it.
                type: str
                required: true
          dns:
            description:
              - For V(acme), the name server that takes the proofs by dynamic update (RFC 2136), signed by a
                key (TSIG). The authority asks it, and not the host on port 80.
              - Needed for wildcards, for hosts that the authority cannot reach, and for a name that several
                hosts share.
            type: dict
            suboptions:
              server:
                description: Address of the primary name server of the zone.
                type: str
                required: true
              port:
                description: Its port.
                type: int
                default: 53
              key:
                description: Name of the key.
                type: str
                required: true
              algorithm:
                description: Algorithm of the key.
                type: str
                choices: [HMAC-SHA224, HMAC-SHA256, HMAC-SHA384, HMAC-SHA512]
                default: HMAC-SHA512
              secret:
                description: Name of the value in C(flask_secrets.<name>) that is the key, in base64. The app
                  does not get it.
                type: str
                required: true
              wait:
                description: Time until all name servers of the zone know what the primary one knows.
                type: str
                default: 60s
          reachable:
            description: For V(acme), whether the host can ask itself under its own names. It does so before
              the authority is asked. V(false) leaves that out, for a host whose router does not lead back.
            type: bool
            default: true
          fullchain:
            description: The certificate and its chain for V(provided), a path on the controller or the PEM
              text.
            type: str
          privkey:
            description: The private key for V(provided), a path on the controller or the PEM text (from a
              vault).
            type: str
          days:
            description: Lifetime in days of a certificate that is V(self_signed). The authority decides on
              others.
            type: int
            default: 90
          renew_before:
            description: Days before the end at which a certificate that is V(self_signed) is replaced.
            type: int
            default: 30
      client_certificates:
        description:
          - Has browsers and programs show a certificate of their own in the handshake (mTLS). Off when not
            given.
          - The app learns of the certificate in the headers C(X-Client-Verify) (C(SUCCESS) or C(NONE)) and
            C(X-Client-Subject) (as in C(CN=alice,O=Example)). Nobody else can set them, also where this is
            off.
          - A certificate that was not issued by the authority, or has expired, is refused, by 403 or by the
            end of the handshake.
        type: dict
        default: {}
        suboptions:
          authority:
            description:
              - The certificates of the authorities whose clients are let in, a path on the controller or the
                PEM text.
              - All that they have issued, also in future and through intermediates, are let in. So take an
                authority of your own, none of those that browsers trust.
            type: str
            required: true
          required:
            description: Whether everybody else is refused, by 403. When V(false), the app decides.
            type: bool
            default: true
      hsts: &hsts
        description:
          - Time for which browsers refuse to visit the app without TLS (Strict-Transport-Security). V(0)
            sends no such header.
          - When not given, V(0) with a certificate that is self-signed or for practice, and one day with
            another. Raise it in steps, as C(docs/operations.md) tells, to V(17520h), two years; browsers
            that were told remember it.
        type: str
      headers: &headers
        description:
          - Headers that the proxy puts on every answer over HTTPS, in the place of the app's own of these
            names. An empty value takes one of the policy away.
          - The policy is C(X-Content-Type-Options), C(Referrer-Policy), what O(_input[].hsts) says, and that
            other sites may not show this one in a frame (C(Content-Security-Policy) with
            C(frame-ancestors 'self'), and C(X-Frame-Options) with C(SAMEORIGIN)).
          - What the app says of frames itself counts. C(X-Frame-Options) is sent where the app sends none,
            and C(frame-ancestors) where it sends neither of the two; who names one here decides likewise.
        type: dict
        default: {}
      error_page: &error_page
        description:
          - What visitors see when the app does not answer, an HTML file on the controller. It is sent with
            the 502, 503 and 504 that the proxy makes itself; the app's own errors pass as they are.
          - It brings along all that it shows, since nothing else can be had then. A plain page when not
            given.
        type: str
      maintenance_page: &maintenance_page
        description: The same for the time in which C(playbooks/maintenance.yml) has switched maintenance on.
          Sent with 503 and C(Retry-After).
        type: str
      allow: &allow
        description:
          - Networks whose clients are served, as in V(192.0.2.0/24) or V(2001:db8::/32). All others are
            answered with 403, for files as for the app. What redirects to the canonical name redirects
            everybody.
          - When not given, everybody is served. To serve everybody where the defaults do not, name both
            V(0.0.0.0/0) and V(::/0).
        type: list
        elements: str
      basic_auth: &basic_auth
        description:
          - Who may see the app at all, by name, each with the hash of a password, as for a staging system.
            It begins with C($2y$) (V(htpasswd -nB ops)) or C($6$) (V(openssl passwd -6)).
          - Asked over HTTPS only, for files as for the app, beside O(_input[].allow). The app does not get
            the C(Authorization) header then.
          - Every request computes the hash again, so at most C($2y$10$) is taken. Names are added to those
            of the defaults.
        type: dict
        default: {}
      trusted_proxies: &trusted_proxies
        description:
          - Networks of the proxies in front of this one, such as a load balancer or a CDN. From these only,
            the client's address is taken from C(X-Forwarded-For), the last one there that is none of theirs.
          - That address is the client's in O(_input[].allow), in the limit of requests, in the logs, and the
            only one that the app gets. They must come to the port of HTTPS and keep the name that the client
            asked for.
        type: list
        elements: str
        default: []
      rate_limit: &rate_limit
        description:
          - How often one client may ask the app. The proxy answers 429 to what comes beyond, and the app sees
            nothing of it. Files that the proxy serves are not counted. Off when not given.
          - A client is an address of IPv4 or a /64 network of IPv6, whose addresses are all one customer's.
            Who shares an address, as in an office, shares the limit.
          - Apache counts in windows, nginx with a leaking bucket; C(docs/proxy-contract.md) says what that
            means. Apache takes the package C(libapache2-mod-qos) for it.
        type: dict
        default: {}
        suboptions:
          rate:
            description: Requests in the long run, in a second or a minute, as in V(10/s) or V(30/m). V(0/s)
              is no limit, where the defaults have one.
            type: str
            required: true
          burst:
            description: How many may come at once, as those of a page that has just been opened.
            type: int
            default: 20
      raw:
        description:
          - What this collection has no key for, in the proxy's own words, for the site of the canonical name.
          - It is checked with the site before it is installed. What the proxy refuses is told, and the host
            keeps what it serves.
          - It must stand on its own, so it can only name what is in it or in a file that it includes. Nothing
            keeps it from undoing what C(docs/proxy-contract.md) promises.
        type: dict
        default: {}
        suboptions:
          nginx:
            description: Lines for the C(server) block, at its end.
            type: str
            default: ""
          apache:
            description: Lines for the C(VirtualHost), before those that hand requests to the app.
            type: str
            default: ""
      logs: &logs
        description:
          - Where the output of gunicorn and of the app goes, and how long logs are kept. V(journal) or
            V(files), which are short for O(_input[].logs.to), or a dictionary.
          - The rest holds for the proxy's log of requests, too, C(/var/log/flask-proxy/flask-<name>.log).
        type: raw
        default: {}
        suboptions:
          to:
            description: The journal, or C(/var/log/flask/<name>/output.log). Whatever the app writes to its
              output and gives to gunicorn's or Flask's handlers is there.
            type: str
            choices: [journal, files]
            default: journal
          every:
            description: How often a log becomes an old one, with the time in its name.
            type: str
            choices: [daily, weekly, monthly]
            default: daily
          keep:
            description: Number of old logs that are kept.
            type: int
            default: 14
          size:
            description: A log that is larger becomes an old one earlier. It is looked at once an hour. V(0)
              is no limit.
            type: str
            default: 1g
          compress:
            description: Whether old logs are compressed, all but the latest.
            type: bool
            default: true
      root: &root
        description: The directory below which the app's own directory is. On a persistent disk.
        type: str
        default: /srv
  defaults:
    description: What holds for every app that does not say otherwise, C(flask_defaults). Dictionaries are
      merged with those of the app.
    type: dict
    default: {}
    suboptions:
      worker_class: *worker_class
      workers: *workers
      worker_memory: *worker_memory
      threads: *threads
      connections: *connections
      max_requests: *max_requests
      timeout: *timeout
      liveness: *liveness
      resources: *resources
      request_limit: *request_limit
      secrets_via: *secrets_via
      needs: *needs
      network: *network
      keep_releases: *keep_releases
      lock_wait: *lock_wait
      hook_timeout: *hook_timeout
      watch: *watch
      tls: *tls
      hsts: *hsts
      headers: *headers
      error_page: *error_page
      maintenance_page: *maintenance_page
      allow: *allow
      basic_auth: *basic_auth
      trusted_proxies: *trusted_proxies
      rate_limit: *rate_limit
      logs: *logs
      root: *root
      config:
        description: Plain environment variables of every app.
        type: dict
        default: {}
      ports:
        description: The ports on which the proxy listens, for all apps of a host.
        type: dict
        default: {}
        suboptions:
          http:
            description: Port that redirects to the other one.
            type: int
            default: 80
          https:
            description: Port that serves the apps.
            type: int
            default: 443
      tls_policy:
        description:
          - How TLS is spoken for all apps of a host, after Mozilla's guidelines 6.0.
          - V(intermediate) suits every client of the last ten years, with TLS 1.2 and 1.3.
          - V(modern) speaks TLS 1.3 alone.
        type: str
        choices: [intermediate, modern]
        default: intermediate
  facts:
    description:
      - The host's facts, C(ansible_facts). The number of cores, the memory and the release of Debian are
        read.
      - What is missing is assumed (2 cores, 2048 MB, Debian 13), and the plan says so in C(host.assumed).
    type: dict
    default: {}
  secrets:
    description:
      - C(flask_secrets), by app and name. Only the names are looked at, to refuse what is missing and to
        tell the role gunicorn which there are.
      - When not given, secrets are not checked.
    type: dict
seealso:
  - name: The data flow
    description: One parameter followed from the inventory into a file on the host.
    link: https://github.com/flaskworks/server/blob/main/docs/data-flow.md
"""

EXAMPLES = r"""
- name: Show what would be served
  ansible.builtin.debug:
    msg: "{{ (flask_apps | flaskworks.server.plan).sites }}"
  vars:
    flask_apps:
      - name: hello
        domains: [hello.example.org, www.hello.example.org]
        source: {path: "{{ inventory_dir }}/../../sample_app"}
        wsgi: hello:create_app()
        health: /healthz
        static: {/static/: src/hello/static}
"""

RETURN = r"""
_value:
  description: The plan. Every key is always there, sizes are bytes and times are seconds.
  type: dict
  contains:
    accounts: {description: "System users and their directories, for the role app.", type: list, elements:
      dict}
    environments: {description: "Virtual environments; releases hold theirs.", type: list, elements: dict}
    services: {description: "Settings of gunicorn and its units, for the role gunicorn.", type: list,
      elements: dict}
    releases: {description: "What is staged and how it is proven healthy, for the role deploy.", type: list,
      elements: dict}
    certificates: {description: "Key pairs, for the role tls.", type: list, elements: dict}
    sites: {description: "What the proxy serves, for the role nginx.", type: list, elements: dict}
    logs: {description: "Logs and how they are rotated, for the role logrotate; those of the proxy itself are
      C(proxy).", type: list, elements: dict}
    policy: {description: "What holds for every site of the host.", type: dict}
    host: {description: "What the plan knows of the host.", type: dict}
"""


@cache
def schema() -> Schema:
    """Return the options of the documentation above: the reference for people is the one that validates."""
    # The loader in C takes a tenth of the time, and every task that reads the plan waits for it.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return read_schema(yaml.load(DOCUMENTATION, Loader=loader)["options"])


def plan(
    apps: object,
    defaults: object = None,
    facts: Mapping[str, Any] | None = None,
    secrets: object = None,
) -> dict[str, Any]:
    """Return the plan of `apps`.

    Raises:
        AnsibleFilterError: with all mistakes of the description, one sentence a line.
    """
    try:
        return resolve(schema(), apps, defaults, facts, secrets)
    except DescriptionError as error:
        raise AnsibleFilterError(str(error)) from None


class FilterModule:
    """Filters of the collection."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"plan": plan}
