-- Writes fields of a hash in another form, if they are as they were read.
-- KEYS: the hash.
-- ARGV: "all" where the fields are all that the hash has, which is made anew
--       then, so that Redis packs it if it can; "some" otherwise. Then for each
--       field: its name and value as they were read, and as they shall be.
-- Returns 1 when done, 0 when something has changed since it was read.
local hash, all = KEYS[1], ARGV[1] == 'all'
if all and redis.call('HLEN', hash) ~= (#ARGV - 1) / 4 then
  return 0
end
for i = 2, #ARGV, 4 do
  if redis.call('HGET', hash, ARGV[i]) ~= ARGV[i + 1] then
    return 0
  end
end
if all then
  redis.call('DEL', hash)
end
for i = 2, #ARGV, 4 do
  if not all then
    redis.call('HDEL', hash, ARGV[i])
  end
  redis.call('HSET', hash, ARGV[i + 2], ARGV[i + 3])
end
return 1
