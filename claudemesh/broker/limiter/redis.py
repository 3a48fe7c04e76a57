"""The rate limiter of several brokers, in Redis or Valkey: a script counts a whole batch at once.

It fails open: while Redis is away or slow every send is allowed, that is logged and shown, and Redis is tried
again after a second. Time is the server's own, so that brokers whose clocks differ agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from claudemesh.broker.limiter.base import (
    ALLOWED,
    BUCKETS,
    BURST_MS,
    COUNTED_MS,
    EPSILON_MS,
    LONGEST_MS,
    Count,
    Decision,
    Kind,
)
from claudemesh.broker.metrics import BrokerMetrics
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.exits import CONFIGURATION, ExitWith
from claudemesh.runtime.logs import get_logger

log = get_logger("broker.limiter")

ANSWER_S = 0.5
_AGAIN_S = 1.0
_PREFIX = "claudemesh:bucket:"

# The arithmetic of `base.py`, for a whole batch. KEYS: three buckets and the set of counted ids of each
# member that sends, the first of which is its mesh's; each bucket is the time at which it will be full.
# ARGV: four constants, then for each id: its place among the KEYS, the id, and its cost for each bucket.
# Returns for each id its wait, 0 when it is allowed, and the number of the bucket that it waits for.
_SCRIPT = """
local counted_ms, burst_ms = tonumber(ARGV[1]), tonumber(ARGV[2])
local longest_ms, epsilon_ms = tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + tonumber(time[2]) / 1000
local ahead, queued, changed, answers = {}, {}, {}, {}
local function exact(number)
  return string.format('%.17g', number)
end
local function load(key)
  if ahead[key] == nil then
    local full_at = tonumber(redis.call('GET', key) or now_ms)
    ahead[key] = math.min(math.max(full_at - now_ms, 0), longest_ms)
    queued[key] = 0
  end
end
local function wait(ahead_ms, cost_ms)
  local over_ms = ahead_ms + math.min(cost_ms, burst_ms) - burst_ms
  return over_ms > epsilon_ms and over_ms or 0
end
for i = 5, #ARGV, 5 do
  local place = tonumber(ARGV[i])
  local set = KEYS[place + 3]
  local at = redis.call('ZSCORE', set, ARGV[i + 1])
  local age_ms = at and now_ms - tonumber(at)
  local longest, bucket = 0, 0
  if not (age_ms and age_ms >= 0 and age_ms < counted_ms) then
    local is_over = false
    for j = 0, 2 do
      local key = KEYS[place + j]
      load(key)
      is_over = is_over or wait(ahead[key], tonumber(ARGV[i + 2 + j])) > 0
    end
    for j = 0, 2 do
      local key, cost_ms = KEYS[place + j], tonumber(ARGV[i + 2 + j])
      if is_over then
        local wait_ms = wait(ahead[key] + queued[key], cost_ms)
        queued[key] = queued[key] + cost_ms
        if wait_ms > longest then
          longest, bucket = wait_ms, j
        end
      else
        ahead[key] = math.min(ahead[key] + cost_ms, longest_ms)
        changed[key] = true
      end
    end
    if not is_over then
      redis.call('ZADD', set, exact(now_ms), ARGV[i + 1])
      redis.call('PEXPIRE', set, counted_ms)
    end
  end
  answers[#answers + 1] = longest > 0 and math.max(1, math.ceil(longest - epsilon_ms)) or 0
  answers[#answers + 1] = bucket
end
for key in pairs(changed) do
  redis.call('SET', key, exact(now_ms + ahead[key]), 'PX', math.ceil(ahead[key]) + 1000)
end
for place = 1, #KEYS, 4 do
  redis.call('ZREMRANGEBYSCORE', KEYS[place + 3], '-inf', exact(now_ms - counted_ms))
end
return answers
"""
_CONSTANTS = (COUNTED_MS, BURST_MS, LONGEST_MS, EPSILON_MS)


class RedisLimiter:
    """Counts in Redis. `url` is `redis://host:6379/0`, `rediss://…` or `unix:///path`."""

    def __init__(self, url: str, clock: Clock, metrics: BrokerMetrics, answer_s: float = ANSWER_S) -> None:
        """Redis is away when it does not answer within `answer_s`."""
        self._clock = clock
        self._metrics = metrics
        try:
            self._redis: Any = Redis.from_url(
                url, socket_timeout=answer_s, socket_connect_timeout=answer_s, decode_responses=False
            )
            # It is made at the first send otherwise, and each send would fail.
            pool: Any = self._redis.connection_pool
            pool.make_connection()
        except (TypeError, ValueError) as error:
            # Not quoted: there may be a password in it.
            text = "--redis-url must be like redis://host:6379/0, rediss://host or unix:///path"
            raise ExitWith(CONFIGURATION, "invalid_configuration", text) from error
        self._script: Any = self._redis.register_script(_SCRIPT)
        self._away_until_s = 0.0

    @property
    def kind(self) -> Kind:
        """`open` while Redis is away."""
        return "open" if self._away_until_s else "redis"

    def has_room(self, counts: Sequence[Count]) -> bool:
        """Return False: other brokers count as well."""
        return False

    async def consume(self, counts: Sequence[Count]) -> Sequence[Decision]:
        """Count a batch in one call; every send is allowed while Redis does not answer."""
        if self._clock.monotonic() < self._away_until_s:
            return self._open(counts)
        keys, arguments = script_arguments(counts)
        try:
            answers = await self._script(keys=keys, args=arguments)
        except (TimeoutError, RedisError, OSError) as error:
            if not self._away_until_s:
                log.error("limiter_open", error=type(error).__name__)
            self._away_until_s = self._clock.monotonic() + _AGAIN_S
            return self._open(counts)
        if self._away_until_s:
            self._away_until_s = 0.0
            log.info("limiter_healed")
        return decisions_of(answers)

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    def _open(self, counts: Sequence[Count]) -> Sequence[Decision]:
        self._metrics.limiter_unavailable.inc(len(counts))
        return [ALLOWED] * len(counts)


def script_arguments(counts: Sequence[Count]) -> tuple[list[str], list[object]]:
    """Return the script's KEYS and ARGV for a batch."""
    keys: list[str] = []
    places: dict[tuple[str, str], int] = {}
    arguments: list[object] = list(_CONSTANTS)
    for count in counts:
        sender = (count.mesh_id, count.member_id)
        if sender not in places:
            places[sender] = len(keys) + 1
            member = f"{_PREFIX}{count.mesh_id}:{count.member_id}"
            keys += [f"{_PREFIX}{count.mesh_id}", f"{member}:sends", f"{member}:bytes", f"{member}:ids"]
        arguments += [places[sender], count.client_message_id, *map(repr, count.costs())]
    return keys, arguments


def decisions_of(answers: Sequence[int]) -> Sequence[Decision]:
    """Return the script's answers as decisions."""
    return [
        ALLOWED if wait == 0 else Decision(False, int(wait), BUCKETS[int(bucket)])
        for wait, bucket in zip(answers[::2], answers[1::2], strict=True)
    ]
