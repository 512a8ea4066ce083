-- wrk asks the address in BENCH_ADDRESS, under the name in its URL: SNI and Host are right without /etc/hosts.
function wrk.resolve(_, service)
  wrk.addrs = wrk.lookup(os.getenv("BENCH_ADDRESS"), service)
end

-- One line of JSON; times in microseconds.
function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '\nRESULT {"requests": %d, "duration": %d, "p50": %.0f, "p99": %.0f, "longest": %.0f, "failed": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
    errors.connect + errors.read + errors.write + errors.timeout + errors.status))
end
