-- A beat of a node: reads the marker of a slot, tries to write, and publishes,
-- so that one round trip tells whether the store is whole, takes changes, and
-- whether what is published on this server arrives.
-- KEYS: the marker, and a key of the node in the same slot.
-- ARGV: the channel, the message.
-- Returns {the marker or "", "OK" or the error of the write}.
local marker = redis.call('GET', KEYS[1]) or ''
local written = redis.pcall('SET', KEYS[2], ARGV[2], 'EX', '60')
redis.call('PUBLISH', ARGV[1], ARGV[2])
return {marker, written.err or 'OK'}
