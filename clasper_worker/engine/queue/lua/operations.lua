-- What was asked for.

if ask.op == 'exchange' then
  for _, token in ipairs(ask.settled) do settle(token) end
  for _, token in ipairs(ask.released) do release(token) end
  for _, token in ipairs(ask.lost or {}) do lose(token) end
  local more = intake(ask.intake)
  if ask.free > 0 then more = select(ask.free) or more end
  return { deliveries, interrupts, buried, more and 1 or 0, put, queued }
elseif ask.op == 'refresh' then
  local lost, cancelled = {}, {}
  for _, token in ipairs(ask.tokens) do
    local tag, about = held(token)
    if tag then
      call('ZADD', P .. 'leases', now + how.lease, tag)
      if about[11] == 'cancelled' then cancelled[#cancelled + 1] = about[5] end
    else
      lost[#lost + 1] = token
    end
  end
  return { lost, cancelled }
elseif ask.op == 'reap' then
  local lapsed, untold = reap(ask.limit), {}
  for _, letter in ipairs(call('LRANGE', P .. 'untold', 0, ask.limit - 1)) do
    untold[#untold + 1] = cjson.decode(letter)
  end
  return { lapsed, untold, call('LRANGE', P .. 'together', 0, 49), put }
elseif ask.op == 'keep_apart' then
  return keep_apart(ask.letter, ask.webhook, ARGV[3])
elseif ask.op == 'is_untold' then
  return call('LPOS', P .. 'untold', cjson.encode(ask.letter)) and 1 or 0
elseif ask.op == 'told' then
  for _, letter in ipairs(ask.letters) do
    call('LREM', P .. 'untold', 1, cjson.encode(letter))
  end
  return #ask.letters
elseif ask.op == 'admit' then
  if call('LREM', ask.key, 1, ARGV[3]) == 0 then return 0 end
  admit(ARGV[3], ask.queue)
  return 1
elseif ask.op == 'part' then
  return part(ask.token, ask.jobs)
elseif ask.op == 'members' then
  return members(ask.token)
elseif ask.op == 'withdraw' then
  local found = {}
  for _, job in ipairs(ask.jobs) do found[#found + 1] = withdraw(job, ask.remember) end
  return found
elseif ask.op == 'recall' then
  for _, name in ipairs(ask.names) do call('ZREM', P .. 'cancelled', name) end
  return #ask.names
elseif ask.op == 'doom' then
  local tag = held(ask.token)
  if not tag then return 0 end
  call('HSET', P .. 'message:' .. tag, 'd', ask.reason)
  return 1
elseif ask.op == 'replay' then
  return replay(ask.letter, ask.instead)
elseif ask.op == 'bury' then
  local tag, about = held(ask.token)
  if tag then bury_running(tag, about, ask.reason) end
  return buried
end
return redis.error_reply('unknown operation ' .. tostring(ask.op))
