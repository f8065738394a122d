"""How registrations stand in Redis, and the four scripts that read and change them, each at one moment of its server.

``prefix:entries:service`` is a hash of address to ``owner json``; ``prefix:expiries:service`` a sorted set of address
to the moment its lease ends; ``prefix:services`` a sorted set of service to the last such moment. All moments are the
server's own TIME, in milliseconds, so that no other clock matters; and all keys expire with what they hold. Redis
tells nobody reliably of an expiry, which is why the moments are readable: a watcher knows when to look again.
``prefix:epoch`` is another one after all data was lost, so that a watcher can tell what left from what was lost.
"""

from __future__ import annotations

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function whole(number) return string.format('%.0f', number) end
"""

_SETTLE = """
local function settle()
  local last = redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2]
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', whole(now))
  if last then
    redis.call('PEXPIREAT', KEYS[1], whole(last + 1000))
    redis.call('PEXPIREAT', KEYS[2], whole(last + 1000))
    redis.call('ZADD', KEYS[3], whole(last), ARGV[3])
  else
    redis.call('ZREM', KEYS[3], ARGV[3])
  end
  local latest = redis.call('ZREVRANGE', KEYS[3], 0, 0, 'WITHSCORES')[2]
  if latest then
    redis.call('PEXPIREAT', KEYS[3], whole(latest + 1000))
    redis.call('SET', KEYS[4], ARGV[2] .. whole(now), 'NX')
    redis.call('PEXPIREAT', KEYS[4], whole(latest + 1000))
  end
end
"""

PUT = f"""{_NOW}{_SETTLE}
local address, owner, value = ARGV[1], ARGV[2], ARGV[2] .. ' ' .. ARGV[5]
local before = redis.call('HGET', KEYS[1], address)
local score = redis.call('ZSCORE', KEYS[2], address)
local alive = before and score and tonumber(score) > now
if ARGV[7] == 'renew' and alive and string.sub(before, 1, #owner + 1) ~= owner .. ' ' then return 0 end
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', whole(now), 'LIMIT', 0, 100)) do
  redis.call('HDEL', KEYS[1], gone)
  redis.call('ZREM', KEYS[2], gone)
end
redis.call('HSET', KEYS[1], address, value)
redis.call('ZADD', KEYS[2], whole(now + ARGV[6]), address)
settle()
if not alive or before ~= value then redis.call('PUBLISH', ARGV[4], ARGV[3]) end
return 1
"""
"""KEYS as of `keys_of`; ARGV address, owner, service, channel, json, lease in ms, ``put`` or ``renew``.

A renewal makes what has gone again, but leaves alone what another process has put there since.
"""

REMOVE = f"""{_NOW}{_SETTLE}
local address, owner = ARGV[1], ARGV[2]
local before = redis.call('HGET', KEYS[1], address)
if not before or string.sub(before, 1, #owner + 1) ~= owner .. ' ' then return 0 end
redis.call('HDEL', KEYS[1], address)
redis.call('ZREM', KEYS[2], address)
settle()
redis.call('PUBLISH', ARGV[4], ARGV[3])
return 1
"""
"""KEYS as above; ARGV address, owner, service, channel. Takes back only what this owner has put."""

READ = f"""{_NOW}
local found = {{redis.call('GET', KEYS[4]) or ''}}
local rows = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. whole(now), '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[1])
for i = 1, #rows, 2 do
  if redis.call('HSTRLEN', KEYS[1], rows[i]) <= tonumber(ARGV[2]) then
    local value = redis.call('HGET', KEYS[1], rows[i])
    if value then
      found[#found + 1] = rows[i]
      found[#found + 1] = value
      found[#found + 1] = whole(rows[i + 1] - now)
    end
  end
end
return found
"""
"""KEYS as above; ARGV the most entries, the most bytes of one. Gives the epoch; then each address, value, ms left."""

SERVICES = f"""{_NOW}
return redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. whole(now), '+inf', 'LIMIT', 0, ARGV[1])
"""
"""KEYS services; ARGV the most."""


def keys_of(prefix: str, service: str) -> tuple[str, str, str, str]:
    """The keys of a service: entries and expiries; and those of all services: their set, and the epoch."""
    entries, expiries = f"{prefix}:entries:{service}", f"{prefix}:expiries:{service}"
    return entries, expiries, services_of(prefix), f"{prefix}:epoch"


def services_of(prefix: str) -> str:
    """The key of the set of all services."""
    return f"{prefix}:services"


def channel_of(prefix: str) -> str:
    """Where the names of services are told of which something has changed."""
    return f"{prefix}:changes"
