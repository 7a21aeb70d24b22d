-- The end of a delivery.

local function held(token)
  local tag, count = string.match(token, '^(.*)#(%d+)$')
  if not tag then return nil end
  local about = field(tag, 'n', 'q', 't', 's', 'j', 'u', 'g', 'l', 'raw', 'd', 'v')
  if about[1] ~= count or call('SISMEMBER', P .. 'running', tag) == 0 then return nil end
  return tag, about
end

local function next_suspect()
  while true do
    local following = call('LPOP', P .. 'suspects')
    if not following then return end
    local about = field(following, 'q', 't')
    if about[1] then
      call('ZREM', depth('behind', about[1]), following)
      make_ready(following, about[1], about[2], true)
      return
    end
  end
end

local function let_go(tag, tenant)
  call('SREM', P .. 'running', tag)
  call('ZREM', P .. 'leases', tag)
  if call('GET', P .. 'suspect') == tag then
    call('DEL', P .. 'suspect')
    next_suspect()
  end
  if tenant == '' then return end
  local running = call('HINCRBY', P .. 'inflight', tenant, -1)
  if running <= 0 then call('HDEL', P .. 'inflight', tenant) end
  if call('SREM', P .. 'capped', tenant) == 1 then
    for _, queue in ipairs(call('SMEMBERS', P .. 'queues')) do
      if call('EXISTS', P .. 'ready:' .. queue .. ':' .. tenant) == 1 then rotate(queue, tenant) end
    end
  end
end

local function finish(tag, about)
  let_go(tag, about[3])
  for _, member in ipairs(about[7] and cjson.decode(about[7]) or {}) do
    local known = field(member, 'j', 'u')
    if known[1] then forget(member, known[1], known[2], true) end
  end
  forget(tag, about[5], about[6])
  advance(about[4], tag)
end

local function bury_running(tag, about, reason, is_told)
  bury(tag, about[9], about[2], about[5], about[3], reason, tonumber(about[8]) + 1, is_told)
  for _, member in ipairs(about[7] and cjson.decode(about[7]) or {}) do
    local known = field(member, 'raw', 'q', 'j', 't')
    if known[1] then
      bury(member, known[1], known[2], known[3], known[4], reason, 1, is_told)
    end
  end
  finish(tag, about)
end

local function bury_followers(lane, turn, reason)
  -- They ask for the very turn that its workers did not survive: each would cost as many again.
  if lane == '' then return end
  for _, other in ipairs(call('LRANGE', P .. 'lane:' .. lane, 1, -1)) do
    local about = field(other, 'u', 'raw', 'q', 'j', 't')
    if about[1] == turn then
      call('LREM', P .. 'lane:' .. lane, 1, other)
      bury(other, about[2], about[3], about[4], about[5], reason, 0)
      forget(other, about[4], turn, true)
    end
  end
end

local function settle(token)
  local tag, about = held(token)
  if not tag then return end
  -- A doomed one's failure is stored by now, and its callers were told.
  if about[10] then bury_running(tag, about, about[10], true) else finish(tag, about) end
end

local function release(token)
  local tag, about = held(token)
  if not tag then return end
  let_go(tag, about[3])
  make_ready(tag, about[2], about[3], true)
end
