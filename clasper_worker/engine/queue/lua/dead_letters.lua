-- Dead letters.

local function bury(id, raw, queue, job, tenant, reason, attempts, is_told)
  call('HSET', P .. 'dead:' .. id, 'raw', raw, 'queue', queue or '', 'job', job or '',
    'user', tenant or '', 'reason', reason, 'attempts', attempts, 'at', now)
  call('ZADD', P .. 'dead', now, id)
  if string.find(raw, '"clasper.send"', 1, true) or string.find(raw, '"clasper.webhook"', 1, true) then
    call('RPUSH', P .. 'together', id)
  end
  local excess = call('ZCARD', P .. 'dead') - how.dead
  if excess > 0 then
    for _, old in ipairs(call('ZRANGE', P .. 'dead', 0, excess - 1)) do
      call('DEL', P .. 'dead:' .. old, P .. 'apart:' .. old)
      call('ZREM', P .. 'dead', old)
    end
  end
  put[#put + 1] = reason
  if is_told then return end
  buried[#buried + 1] = { id, job or '', reason }
  -- Whoever hears of it now may die before it has told the caller.
  if job and job ~= '' then
    call('RPUSH', P .. 'untold', cjson.encode({ id, job, reason }))
  end
end

local function replay(id, instead)
  local letter = call('HMGET', P .. 'dead:' .. id, 'raw', 'queue', 'job', 'reason')
  if not letter[1] then return 'unknown' end
  local message = read(letter[1])
  if not message or letter[2] == '' then return 'unreadable' end
  local _, _, _, turn = route(message)
  call('ZREM', P .. 'cancelled', message.headers.id, turn)
  call('LREM', P .. 'untold', 0, cjson.encode({ id, letter[3], letter[4] }))
  call('LPUSH', letter[2], instead ~= '' and instead or letter[1])
  call('DEL', P .. 'dead:' .. id, P .. 'apart:' .. id)
  call('ZREM', P .. 'dead', id)
  call('LREM', P .. 'together', 1, id)
  return 'replayed'
end

local function keep_apart(id, webhook, raw)
  call('LREM', P .. 'together', 0, id)
  if raw and call('EXISTS', P .. 'dead:' .. id) == 1 then
    call('HSET', P .. 'dead:' .. id, 'raw', raw)
    call('SET', P .. 'apart:' .. id, webhook, 'PX', how.apart)
  end
end
