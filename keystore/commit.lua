-- Commits one change: checks every guard, then does every step, in one go.
-- KEYS: a key for each guard, then a key for each step (unused for publish).
-- ARGV: number of guards, then "is" value | "below" number | "has" field for
--       each guard,
--       then the steps: "set" value unix-seconds-of-its-end (0: none) | "del" |
--       "hset" field value | "hdel" field |
--       "count" field how-many unix-seconds-of-the-hash's-end |
--       "zadd" score member (if it is new) |
--       "zrem" member | "publish" channel message |
--       "xadd" id entry most-entries seconds-that-they-are-kept |
--       "xdel" entry (of the last that were added)
-- Returns 0 when done, or the number of the first guard that does not hold.
local next_arg, next_key = 2, 1
local function take()
  local value = ARGV[next_arg]
  next_arg = next_arg + 1
  return value
end

for guard = 1, tonumber(ARGV[1]) do
  local kind, want = take(), take()
  local key = KEYS[next_key]
  next_key = next_key + 1
  if kind == 'is' and (redis.call('GET', key) or '') ~= want then
    return guard
  elseif kind == 'below' and redis.call('HLEN', key) >= tonumber(want) then
    return guard
  elseif kind == 'has' and redis.call('HEXISTS', key, want) == 0 then
    return guard
  end
end

while next_arg <= #ARGV do
  local kind, key = take(), KEYS[next_key]
  next_key = next_key + 1
  if kind == 'set' then
    local value, ends = take(), take()
    redis.call('SET', key, value)
    if ends ~= '0' then
      redis.call('EXPIREAT', key, ends)
    end
  elseif kind == 'del' then
    redis.call('DEL', key)
  elseif kind == 'hset' then
    redis.call('HSET', key, take(), take())
  elseif kind == 'count' then
    redis.call('HINCRBY', key, take(), take())
    redis.call('EXPIREAT', key, take())
  elseif kind == 'hdel' then
    redis.call('HDEL', key, take())
  elseif kind == 'zadd' then
    redis.call('ZADD', key, 'NX', take(), take())
  elseif kind == 'zrem' then
    redis.call('ZREM', key, take())
  elseif kind == 'xadd' then
    local id, entry, keep, age = take(), take(), take(), take()
    local added = redis.call('XADD', key, id, 'event', entry)
    local oldest = tonumber(string.match(added, '^%d+')) - tonumber(age) * 1000
    redis.call('XTRIM', key, 'MAXLEN', keep)
    redis.call('XTRIM', key, 'MINID', string.format('%.0f', math.max(oldest, 0)))
    redis.call('EXPIRE', key, age)
  elseif kind == 'xdel' then
    local entry = take()
    for _, found in ipairs(redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1000)) do
      if found[2][2] == entry then
        redis.call('XDEL', key, found[1])
      end
    end
  elseif kind == 'publish' then
    redis.call('PUBLISH', take(), take())
  end
end
return 0
