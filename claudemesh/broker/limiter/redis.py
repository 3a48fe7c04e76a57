"""One limiter for several brokers, in Redis or Valkey: a script that counts a whole batch at once.

It fails open: a Redis that is away or slow lets everybody through, is logged and shown, and is asked
again after a second. The window is the server's own time, so brokers whose clocks differ agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from claudemesh.broker.limiter.base import ALLOWED, WINDOW_S, Count, Decision, Kind
from claudemesh.broker.metrics import BrokerMetrics
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.exits import CONFIGURATION, ExitWith
from claudemesh.runtime.logs import get_logger

log = get_logger("broker.limiter")

_TIMEOUT_S = 0.5
_AGAIN_S = 1.0
_PREFIX = "claudemesh:limit:"

# KEYS: a set for each mesh. ARGV: seconds of a window, then for each id: which key, its limit, the id.
# A set belongs to its window, whose number is its first member's; what is left of an earlier one goes.
_SCRIPT = """
local window_s = tonumber(ARGV[1])
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local window = math.floor(now_ms / (window_s * 1000))
local ends_ms = (window + 1) * window_s * 1000
local wait_ms = ends_ms - now_ms
local answers = {}
for i = 2, #ARGV, 3 do
  local key = KEYS[tonumber(ARGV[i])] .. ':' .. window
  local answer = 0
  if redis.call('SISMEMBER', key, ARGV[i + 2]) == 0 then
    if redis.call('SCARD', key) >= tonumber(ARGV[i + 1]) then
      answer = math.max(1, wait_ms)
    else
      redis.call('SADD', key, ARGV[i + 2])
      redis.call('PEXPIREAT', key, ends_ms + 1000)
    end
  end
  answers[#answers + 1] = answer
end
return answers
"""


class RedisLimiter:
    """Counts in Redis. `url` is `redis://host:6379/0`, `rediss://…` or `unix:///path`."""

    def __init__(self, url: str, clock: Clock, metrics: BrokerMetrics) -> None:
        self._clock = clock
        self._metrics = metrics
        try:
            self._redis: Any = Redis.from_url(
                url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S, decode_responses=False
            )
        except ValueError as error:
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
        """Never certain: other brokers count as well."""
        return False

    async def consume(self, counts: Sequence[Count]) -> Sequence[Decision]:
        """Count a batch in one call; everybody is allowed while Redis does not answer."""
        if self._clock.monotonic() < self._away_until_s:
            return self._open(counts)
        keys = list(dict.fromkeys(count.mesh_id for count in counts))
        places = {mesh_id: number for number, mesh_id in enumerate(keys, 1)}
        arguments: list[object] = [WINDOW_S]
        for count in counts:
            entry = f"{count.member_id}:{count.client_message_id}"
            arguments += [places[count.mesh_id], count.limit, entry]
        try:
            answers = await self._script(keys=[f"{_PREFIX}{key}" for key in keys], args=arguments)
        except (TimeoutError, RedisError, OSError) as error:
            if not self._away_until_s:
                log.error("limiter_open", error=type(error).__name__)
            self._away_until_s = self._clock.monotonic() + _AGAIN_S
            return self._open(counts)
        if self._away_until_s:
            self._away_until_s = 0.0
            log.info("limiter_healed")
        return [ALLOWED if wait_ms == 0 else Decision(False, int(wait_ms)) for wait_ms in answers]

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    def _open(self, counts: Sequence[Count]) -> Sequence[Decision]:
        self._metrics.limiter_unavailable.inc(len(counts))
        return [ALLOWED] * len(counts)
