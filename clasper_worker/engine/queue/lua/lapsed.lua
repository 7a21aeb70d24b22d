-- Leases that have lapsed: whose worker is blamed for what.

local function is_steady()
  -- After a gap in which nobody looked (Redis stood still or was away, or all workers did) living
  -- workers get a lease's time to prolong theirs, before any is taken for dead.
  local last = tonumber(call('GET', P .. 'leases:pulse') or 0)
  call('SET', P .. 'leases:pulse', now)
  if now < last - how.lease / 2 then
    -- The clock was set back (another Redis has taken over, say): no lease lasts for that long.
    for _, tag in ipairs(call('SMEMBERS', P .. 'running')) do
      call('ZADD', P .. 'leases', now + how.lease, tag)
    end
  end
  if math.abs(now - last) > how.lease / 2 then
    call('SET', P .. 'leases:hold', now + how.lease, 'PX', how.lease * 2)
  end
  return now >= tonumber(call('GET', P .. 'leases:hold') or 0)
end

local function most_blamed(lapsed)
  -- By lost worker, how often those of its messages were blamed that were blamed most. Only such
  -- are blamed again: a message that kills its workers is there each time, its neighbours change.
  local most = {}
  for _, tag in ipairs(lapsed) do
    local about = field(tag, 'w', 'l')
    local worker = about[1]
    if worker then
      -- What it had taken last lapses last.
      local known = most[worker] or tonumber(call('GET', P .. 'lost:' .. worker) or 0)
      most[worker] = math.max(known, tonumber(about[2]))
    end
  end
  for worker, times in pairs(most) do
    call('SET', P .. 'lost:' .. worker, times, 'PX', how.lease * 2)
  end
  return most
end

local function blame(tag, about)
  -- Its process was lost while it ran: it runs again, unless that has happened too often.
  if tonumber(about[8]) + 1 >= how.attempts then
    local reason = 'lost its worker (' .. how.attempts .. ' times)'
    bury_followers(about[4], about[6], reason)
    bury_running(tag, about, reason)
  else
    call('HINCRBY', P .. 'message:' .. tag, 'l', 1)
    let_go(tag, about[3])
    make_ready(tag, about[2], about[3], true)
  end
end

local function lose(token)
  -- A worker lives, but the process of it that ran this delivery, and nothing else, does not.
  local tag, about = held(token)
  if tag then blame(tag, about) end
end

local function mend_depths()
  -- Workers of an older version do not count what they move: the oldest are looked at again.
  for _, queue in ipairs(call('SMEMBERS', P .. 'queues')) do
    for _, state in ipairs({ 'ready', 'behind' }) do
      for _, tag in ipairs(call('ZRANGE', depth(state, queue), 0, 9)) do
        if not exists(tag) or call('SISMEMBER', P .. 'running', tag) == 1 then
          call('ZREM', depth(state, queue), tag)
        end
      end
    end
  end
end

local function reap(limit)
  if ask.worker then
    call('ZADD', P .. 'workers', now, ask.worker)
    call('ZREMRANGEBYSCORE', P .. 'workers', '-inf', now - how.lease)
    call('PEXPIRE', P .. 'workers', how.lease * 2)
  end
  if call('SCARD', P .. 'running') > call('ZCARD', P .. 'leases') then
    for _, tag in ipairs(call('SMEMBERS', P .. 'running')) do  -- leases were lost with a flush
      call('ZADD', P .. 'leases', 'NX', now + how.lease, tag)
    end
  end
  if not is_steady() then return 0 end
  local lapsed = call('ZRANGEBYSCORE', P .. 'leases', '-inf', now, 'LIMIT', 0, limit)
  local most = most_blamed(lapsed)
  for _, tag in ipairs(lapsed) do
    local about = field(tag, 'n', 'q', 't', 's', 'j', 'u', 'g', 'l', 'raw', 'w')
    local lapses = tonumber(about[8])
    if not about[1] then
      call('SREM', P .. 'running', tag)
      call('ZREM', P .. 'leases', tag)
    elseif about[10] and lapses < most[about[10]] then
      let_go(tag, about[3])
      make_ready(tag, about[2], about[3], true)
    else
      blame(tag, about)
    end
  end
  call('ZREMRANGEBYSCORE', P .. 'cancelled', '-inf', now)
  if call('EXISTS', P .. 'suspect') == 0 then next_suspect() end
  mend_depths()
  return #lapsed
end
