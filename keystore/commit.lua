-- Commits one change: checks every guard, then does every step, in one go.
-- KEYS: the marker of the slot (unless ARGV[1] is empty), a key for each guard,
--       then a key for each step (for publish: the record it is about).
-- ARGV: the identity of the store, or "" to leave markers alone,
--       "count" if the change counts in the marker, or "" if it writes nothing,
--       the channel that is published on, or "",
--       number of guards, then "is" value | "below" number | "has" field for
--       each guard,
--       then the steps: "set" value unix-seconds-of-its-end (0: none) |
--       "replace" (likewise, of a key that is there) | "del" |
--       "hset" field value | "hdel" field |
--       "count" field how-many unix-seconds-of-the-hash's-end |
--       "zadd" score member (if it is new) |
--       "zrem" member | "publish" channel message |
--       "xadd" id entry most-entries seconds-that-they-are-kept |
--       "xonce" (likewise, unless it is among the last entries) |
--       "xdel" entry (of the last that were added) |
--       "room" (deletes nothing, so that what follows works in full memory)
-- Returns {0, position} when done, or {number of the first guard that does not
-- hold, position}; a position is the marker without the identity, or "".
--
-- Redis decides whether memory is full when a script begins, and asks no more
-- once the script has written. Steps that free memory come first, and work
-- while it is full; so do those behind them.
local identity, counts, channel = ARGV[1], ARGV[2] == 'count', ARGV[3]
local next_arg, next_key = 5, 1
local function take()
  local value = ARGV[next_arg]
  next_arg = next_arg + 1
  return value
end

local generation, count = '', 0
local marker = ''
if identity ~= '' then
  marker = KEYS[1]
  next_key = 2
  local value = redis.call('GET', marker) or ''
  if string.sub(value, 1, #identity + 1) == identity .. ':' then
    generation, count = string.match(string.sub(value, #identity + 2), '^(%d+):(%d+)$')
  end
  if not count or generation == '' then
    return redis.error_reply('EMPTIED the marker of the store is missing')
  end
  count = tonumber(count)
end
-- A script that fails half way takes nothing back: what the user may lack is
-- asked first. Redis knows acl_check_cmd from version 7.0 on.
if channel ~= '' and redis.acl_check_cmd and not redis.acl_check_cmd('PUBLISH', channel, '') then
  return redis.error_reply('NOPERM this user may not publish on ' .. channel)
end

local function position()
  if identity == '' then
    return ''
  end
  return generation .. ':' .. string.format('%.0f', count)
end
local counted = not counts or identity == ''
local function count_up()
  if not counted then
    counted = true
    count = count + 1
    redis.call('SET', marker, identity .. ':' .. position())
  end
end

for guard = 1, tonumber(ARGV[4]) do
  local kind, want = take(), take()
  local key = KEYS[next_key]
  next_key = next_key + 1
  if kind == 'is' and (redis.call('GET', key) or '') ~= want then
    return {guard, position()}
  elseif kind == 'below' and redis.call('HLEN', key) >= tonumber(want) then
    return {guard, position()}
  elseif kind == 'has' and redis.call('HEXISTS', key, want) == 0 then
    return {guard, position()}
  end
end

local frees = {room = true, del = true, hdel = true, zrem = true, replace = true}
while next_arg <= #ARGV do
  local kind, key = take(), KEYS[next_key]
  next_key = next_key + 1
  if not frees[kind] then
    count_up()
  end
  if kind == 'set' or kind == 'replace' then
    local value, ends = take(), take()
    if kind == 'replace' then
      redis.call('DEL', key)
    end
    redis.call('SET', key, value)
    if ends ~= '0' then
      redis.call('EXPIREAT', key, ends)
    end
  elseif kind == 'del' or kind == 'room' then
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
  elseif kind == 'xadd' or kind == 'xonce' then
    local id, entry, keep, age = take(), take(), take(), take()
    local there = false
    if kind == 'xonce' then
      for _, found in ipairs(redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1000)) do
        there = there or found[2][2] == entry
      end
    end
    if not there then
      local added = redis.call('XADD', key, id, 'event', entry)
      local oldest = tonumber(string.match(added, '^%d+')) - tonumber(age) * 1000
      redis.call('XTRIM', key, 'MAXLEN', keep)
      redis.call('XTRIM', key, 'MINID', string.format('%.0f', math.max(oldest, 0)))
      redis.call('EXPIRE', key, age)
    end
  elseif kind == 'xdel' then
    local entry = take()
    for _, found in ipairs(redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1000)) do
      if found[2][2] == entry then
        redis.call('XDEL', key, found[1])
      end
    end
  elseif kind == 'publish' then
    local on, message = take(), take()
    if identity ~= '' then
      message = message .. '#' .. position()
    end
    redis.call('PUBLISH', on, message)
  end
end
count_up()
return {0, position()}
