-- The scheduler of turns, inside the broker's Redis: what moves a message does so in one step.
--
--   stock list ──intake──► message + lane ──► ready list of its tenant ──select──► running, leased
--                              ▲                                                       │
--                              └───────── lapsed, released (front) ◄──────────────────┤
--                                                                    settled, dead ◄───┘
--
-- Keys (all under "clasper:"; a tag is a message's own name, a token is "tag#delivery"):
--   message:<tag>          hash: raw, q(ueue), j(ob), t(enant), s(ession lane), n (of its newest
--                          delivery, 0 before the first), w(orker that has it), l(apses that it is
--                          blamed for), b(usy policy), v(erdict), u (turn), g(roup of collected
--                          tags), d(oom: why this delivery failed for good), y(ields to its session's
--                          next turn), p (the message of the same job that came before it)
--   lane:<id>              list: the session's messages in order of arrival; the first is its turn
--   ready:<queue>:<tenant> list: messages that may run; tenants:<queue> list: whose turn it is;
--   rotating:<queue>       set: the tenants in that list
--   running                set of tags; leases: the same, by when (ms) they lapse;
--   leases:pulse, :hold    when (ms) somebody last looked for lapsed leases; not before when to
--   inflight               hash: how many messages of a tenant run; capped: the tenants that were
--                          passed over because of it, and are in no rotation
--   jobs                   hash: job id → tag; turn-jobs:<turn>: set of job ids, also of ended ones
--   cancelled              jobs and turns that are not to run if they come, by when (ms) to forget it
--   suspect, suspects      the one running message that has lost many workers; those that wait
--   lost:<worker>          how often the most blamed of its messages was before, for two leases' time
--   dead, dead:<id>        dead letters, by time (ms)
--   untold                 list: those of them whose callers have not been told yet
--
-- ARGV[1]: what to do, ARGV[2]: how (both JSON), ARGV[3]: the message that it is about, for some.

local ask, how = cjson.decode(ARGV[1]), cjson.decode(ARGV[2])
local call = redis.call
local P = 'clasper:'
local clock = call('TIME')
local microseconds = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local now = math.floor(microseconds / 1000)
local deliveries, interrupts, buried = {}, {}, {}

local function field(tag, ...) return call('HMGET', P .. 'message:' .. tag, ...) end

-- Base64, as stock producers encode bodies. Redis has no function for it.

local values
local function base64_values()
  local alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'
  local found = { [string.byte('=')] = 0 }
  for i = 1, 64 do found[string.byte(alphabet, i)] = i - 1 end
  return found
end

local function base64_decode(text)
  -- Without calls of floor and with sixteen characters at a time: this is most of the work of
  -- the intake. A character that is none of Base64's raises an error.
  values = values or base64_values()
  local v, byte, char = values, string.byte, string.char
  local out, n, length = {}, 0, #text
  if length % 4 ~= 0 then return nil end
  local i = 1
  while i + 15 <= length do
    local a, b, c, d, e, f, g, h, j, k, l, m, o, p, q, r = byte(text, i, i + 15)
    local w = ((v[a] * 64 + v[b]) * 64 + v[c]) * 64 + v[d]
    local x = ((v[e] * 64 + v[f]) * 64 + v[g]) * 64 + v[h]
    local y = ((v[j] * 64 + v[k]) * 64 + v[l]) * 64 + v[m]
    local z = ((v[o] * 64 + v[p]) * 64 + v[q]) * 64 + v[r]
    local w3, x3, y3, z3 = w % 256, x % 256, y % 256, z % 256
    w, x, y, z = (w - w3) / 256, (x - x3) / 256, (y - y3) / 256, (z - z3) / 256
    local w2, x2, y2, z2 = w % 256, x % 256, y % 256, z % 256
    n = n + 1
    out[n] = char((w - w2) / 256, w2, w3, (x - x2) / 256, x2, x3, (y - y2) / 256, y2, y3,
      (z - z2) / 256, z2, z3)
    i = i + 16
  end
  while i <= length do
    local a, b, c, d = byte(text, i, i + 3)
    local w = ((v[a] * 64 + v[b]) * 64 + v[c]) * 64 + v[d]
    local w3 = w % 256
    w = (w - w3) / 256
    n = n + 1
    out[n] = char((w - w % 256) / 256, w % 256, w3)
    i = i + 4
  end
  local decoded = table.concat(out)
  if string.sub(text, -2) == '==' then return string.sub(decoded, 1, -3) end
  if string.sub(text, -1) == '=' then return string.sub(decoded, 1, -2) end
  return decoded
end

-- Whose a message is, and which session's.

local function uuid5(namespace_hex, name)
  local bytes = string.gsub(namespace_hex, '..', function(x) return string.char(tonumber(x, 16)) end)
  local h = redis.sha1hex(bytes .. name)
  local variant = string.format('%x', 8 + tonumber(string.sub(h, 17, 17), 16) % 4)
  return table.concat({
    string.sub(h, 1, 8), string.sub(h, 9, 12), '5' .. string.sub(h, 14, 16),
    variant .. string.sub(h, 18, 20), string.sub(h, 21, 32),
  }, '-')
end

local function text(x)
  if type(x) ~= 'string' then return nil end
  -- Not by one pattern for both ends: on long white space that takes the square of its length.
  local first = string.find(x, '%S')
  if not first then return nil end
  return string.sub(x, first, #x - string.find(string.reverse(x), '%S') + 1)
end

local function body_arguments(message)
  local body = message.body
  if message.properties.body_encoding == 'base64' then body = base64_decode(body) end
  local decoded = cjson.decode(body)
  return decoded[2]
end

local function arguments(message)
  local route = message.headers.clasper_route
  if type(route) == 'table' then return route end
  return body_arguments(message)
end

local function route(message)
  local job = message.headers.id
  local is_turn, yields = message.headers.task == 'clasper.send', false
  if message.headers.task == 'clasper.heartbeat' then is_turn, yields = true, true end
  if not is_turn then return '', '', '', job end
  local readable, kwargs = pcall(arguments, message)
  local user = readable and type(kwargs) == 'table' and text(kwargs.user_id)
  if not user then return '', '', '', job end  -- the task itself says what is wrong with it
  local session = text(kwargs.session_key)
  if not session then session = 'user:' .. user .. ':' .. (text(kwargs.agent_role) or 'default') end
  local lane = redis.sha1hex(#user .. ':' .. user .. session)
  if yields then return user, lane, 'reject', job, true end
  local turn, key = job, text(kwargs.idempotency_key)
  if key then
    -- As turn/identity.py, whose lengths are in characters.
    local _, continuation = string.gsub(user, '[\128-\191]', '')
    turn = uuid5(how.namespace, (#user - continuation) .. ':' .. user .. ':' .. key)
  end
  local metadata = kwargs.metadata
  local busy = type(metadata) == 'table' and text(metadata.busy) or ''
  return user, lane, busy, turn
end

-- Dead letters.

local function bury(id, raw, queue, job, tenant, reason, attempts, is_told)
  call('HSET', P .. 'dead:' .. id, 'raw', raw, 'queue', queue or '', 'job', job or '',
    'user', tenant or '', 'reason', reason, 'attempts', attempts, 'at', now)
  call('ZADD', P .. 'dead', now, id)
  local excess = call('ZCARD', P .. 'dead') - how.dead
  if excess > 0 then
    for _, old in ipairs(call('ZRANGE', P .. 'dead', 0, excess - 1)) do
      call('DEL', P .. 'dead:' .. old)
      call('ZREM', P .. 'dead', old)
    end
  end
  if is_told then return end
  buried[#buried + 1] = { id, job or '', reason }
  -- Whoever hears of it now may die before it has told the caller.
  if job and job ~= '' then
    call('RPUSH', P .. 'untold', cjson.encode({ id, job, reason }))
  end
end

-- What may run.

local function know(job, turn)
  if turn == job then return end
  call('SADD', P .. 'turn-jobs:' .. turn, job)
  call('PEXPIRE', P .. 'turn-jobs:' .. turn, how.remember)
end

local function is_capped(tenant)
  if tenant == '' then return false end
  return tonumber(call('HGET', P .. 'inflight', tenant) or 0) >= how.cap
end

local function rotate(queue, tenant)
  if is_capped(tenant) then
    call('SADD', P .. 'capped', tenant)
  elseif call('SADD', P .. 'rotating:' .. queue, tenant) == 1 then
    call('RPUSH', P .. 'tenants:' .. queue, tenant)
  end
end

local function make_ready(tag, queue, tenant, in_front)
  call(in_front and 'LPUSH' or 'RPUSH', P .. 'ready:' .. queue .. ':' .. tenant, tag)
  rotate(queue, tenant)
end

local function exists(tag) return call('EXISTS', P .. 'message:' .. tag) == 1 end

local function register(job, tag)
  if call('HSETNX', P .. 'jobs', job, tag) == 1 then return end
  -- The job came again: as a retry does, or where a producer sent it twice.
  local earlier = call('HGET', P .. 'jobs', job)
  if exists(earlier) then call('HSET', P .. 'message:' .. tag, 'p', earlier) end
  call('HSET', P .. 'jobs', job, tag)
end

local function forget(tag, job, turn)
  local earlier = field(tag, 'p')[1]
  call('DEL', P .. 'message:' .. tag)
  if call('HGET', P .. 'jobs', job) ~= tag then return end  -- it came again, and that one is left
  if earlier and exists(earlier) then
    call('HSET', P .. 'jobs', job, earlier)
    return
  end
  call('HDEL', P .. 'jobs', job)
  if turn ~= job then call('PEXPIRE', P .. 'turn-jobs:' .. turn, how.remember) end
end

local function advance(lane, tag)
  -- The session's turn `tag` is over: the next may run.
  if lane == '' then return end
  local key = P .. 'lane:' .. lane
  if call('LINDEX', key, 0) ~= tag then
    call('LREM', key, 1, tag)
    return
  end
  call('LPOP', key)
  while true do
    local following = call('LINDEX', key, 0)
    if not following then return end
    local about = field(following, 'q', 't')
    if about[1] then
      make_ready(following, about[1], about[2])
      return
    end
    call('LPOP', key)  -- its message is gone: it must not bar the way for ever
  end
end

-- From the stock lists into lanes.

local function is_utf8(name)
  -- A worker could read no answer that has a name in it which is not; Redis' JSON lets it pass.
  if not string.find(name, '[\128-\255]') then return true end
  if string.find(name, '\224[\128-\159]') or string.find(name, '\237[\160-\191]')
    or string.find(name, '\240[\128-\143]') or string.find(name, '\244[\144-\191]') then
    return false
  end
  name = string.gsub(name, '[\240-\244][\128-\191][\128-\191][\128-\191]', ' ')
  name = string.gsub(name, '[\224-\239][\128-\191][\128-\191]', ' ')
  name = string.gsub(name, '[\194-\223][\128-\191]', ' ')
  return not string.find(name, '[\128-\255]')
end

local function read(raw)
  local readable, message = pcall(cjson.decode, raw)
  if readable and type(message) == 'table' and type(message.properties) == 'table'
    and type(message.headers) == 'table' and text(message.headers.id)
    and text(message.properties.delivery_tag)
    and is_utf8(message.headers.id) and is_utf8(message.properties.delivery_tag) then
    return message
  end
  return nil
end

local function is_cancelled(job, turn)
  if call('ZSCORE', P .. 'cancelled', job) then return true end
  return turn ~= job and call('ZSCORE', P .. 'cancelled', turn)
end

local function admit(raw, queue)
  local message = read(raw)
  if not message then
    bury(redis.sha1hex(raw .. now), raw, queue, '', '', 'not a message of Celery', 0)
    return
  end
  local job, tag = message.headers.id, message.properties.delivery_tag
  if exists(tag) then
    tag = tag .. '+' .. call('INCR', P .. 'tick')
  end
  local tenant, lane, busy, turn, yields = route(message)
  local verdict = ''
  if is_cancelled(job, turn) then verdict, lane = 'cancelled', '' end  -- whoever runs it says so
  local place = 0
  if lane ~= '' then
    local key = P .. 'lane:' .. lane
    place = call('RPUSH', key, tag)
    if place > 1 then
      local policy = busy ~= '' and busy or how.busy
      local head = call('LINDEX', key, 0)
      local running = field(head, 'j', 'y', 'u')
      -- A heartbeat is no reason to turn anybody away: it gives way to the first who comes.
      local gives_way = running[2] and place == 2 and not yields
      -- The same turn asked for again waits for its result; it neither stops nor is refused it.
      local follows = running[3] == turn and not yields
      if place - 1 > how.depth and not gives_way and not follows then verdict = 'lane_full' end
      if policy == 'reject' and not gives_way and not follows then verdict = 'busy' end
      if verdict ~= '' then
        call('RPOP', key)
        lane = ''
      elseif (policy == 'interrupt' and not follows) or gives_way then
        local interrupted = running[1]
        if interrupted then
          interrupts[#interrupts + 1] = interrupted
          call('HSET', P .. 'message:' .. head, 'v', 'cancelled')  -- should its worker die first
        end
      end
    end
  end
  if verdict ~= '' then tenant = '' end  -- it does nothing: no cap and no backlog delays its answer
  call('HSET', P .. 'message:' .. tag, 'raw', raw, 'q', queue, 'j', job, 't', tenant, 's', lane,
    'n', 0, 'l', 0, 'b', busy, 'v', verdict, 'u', turn)
  if yields then call('HSET', P .. 'message:' .. tag, 'y', '1') end
  register(job, tag)
  know(job, turn)
  if lane ~= '' and place > 1 then return end
  make_ready(tag, queue, tenant)
end

local INTAKE_BYTES = 262144  -- about 15 ms of Redis' time, which every client waits for

local function intake(limit)
  if limit <= 0 then return false end
  -- A tenth of the limit is kept for each queue that follows: no backlog bars the others' way.
  local left, bytes, more = limit, INTAKE_BYTES, false
  for place, queue in ipairs(how.queues) do
    if call('EXISTS', unpack(queue.keys)) > 0 then
      call('SADD', P .. 'queues', queue.name)
      local quota = math.max(left - math.floor(limit / 10) * (#how.queues - place), 1)
      for _, key in ipairs(queue.keys) do
        while quota > 0 do
          local raw = call('RPOP', key)
          if not raw then break end
          admit(raw, queue.name)
          quota, left, bytes = quota - 1, left - 1, bytes - #raw
          if bytes <= 0 then quota = 0 end
        end
      end
      more = more or quota <= 0
    end
  end
  return more
end

-- From ready to running.

local function pop(queue)
  while true do
    local tenant = call('LPOP', P .. 'tenants:' .. queue)
    if not tenant then return nil end
    local tag
    if is_capped(tenant) then
      call('SADD', P .. 'capped', tenant)
    else
      tag = call('LPOP', P .. 'ready:' .. queue .. ':' .. tenant)
    end
    if tag and call('EXISTS', P .. 'ready:' .. queue .. ':' .. tenant) == 1 then
      call('RPUSH', P .. 'tenants:' .. queue, tenant)
    else
      call('SREM', P .. 'rotating:' .. queue, tenant)
    end
    if tag then return tag end
  end
end

local function collect(tag, lane, queue)
  -- The messages that wait behind this one and ask for it are run with it as one turn.
  local key, group = P .. 'lane:' .. lane, {}
  while #group < how.depth do
    local following = call('LINDEX', key, 1)
    if not following then break end
    local about = field(following, 'b', 'q')
    if (about[1] ~= '' and about[1] or how.busy) ~= 'collect' or about[2] ~= queue then break end
    call('LREM', key, 1, following)
    group[#group + 1] = following
  end
  if #group > 0 then call('HSET', P .. 'message:' .. tag, 'g', cjson.encode(group)) end
end

local function waits_as_suspect(tag, lapses)
  -- What has lost several workers may be what kills them. Such messages run one at a time among
  -- all workers: then only one's neighbours are lost with it, and no innocent one is lost with
  -- others of its kind until it counts as dead.
  if lapses < how.suspect then return false end
  local other = call('GET', P .. 'suspect')
  if other and other ~= tag and call('SISMEMBER', P .. 'running', other) == 1 then
    call('RPUSH', P .. 'suspects', tag)
    return true
  end
  call('SET', P .. 'suspect', tag)
  return false
end

local function lease(tag)
  local about = field(tag, 'raw', 'q', 't', 's', 'l', 'b', 'v', 'n')
  if not about[1] or waits_as_suspect(tag, tonumber(about[5])) then return false end
  -- A number that no delivery of it had, not even one of which a Redis that lost its last writes
  -- knows nothing any more: two workers must never hold the same token.
  local before = tonumber(about[8])
  local is_first = before == 0
  local count = string.format('%.0f', math.max(before + 1, microseconds))
  call('HSET', P .. 'message:' .. tag, 'n', count, 'w', ask.worker)
  if not is_first then call('HDEL', P .. 'message:' .. tag, 'd') end
  call('SADD', P .. 'running', tag)
  call('ZADD', P .. 'leases', now + how.lease, tag)
  if about[3] ~= '' then call('HINCRBY', P .. 'inflight', about[3], 1) end
  if is_first and about[4] ~= '' and (about[6] ~= '' and about[6] or how.busy) == 'collect' then
    collect(tag, about[4], about[2])
  end
  local raws = {}
  local group = field(tag, 'g')[1]
  if group then
    for _, member in ipairs(cjson.decode(group)) do
      raws[#raws + 1] = field(member, 'raw')[1] or nil
    end
  end
  deliveries[#deliveries + 1] = {
    about[2], tag .. '#' .. count, about[1], about[7], about[5], raws, is_first and 0 or 1,
  }
  return true
end

local function choose()
  -- Seven of ten choices begin with the first queue; each of the others begins its share.
  local tick = call('INCR', P .. 'tick')
  local first, in_ten = 1, tick % 10
  if in_ten > 6 and #how.queues > 1 then
    first = 2 + ((tick - in_ten) / 10 * 3 + in_ten - 7) % (#how.queues - 1)
  end
  local tag = pop(how.queues[first].name)
  for place = 1, #how.queues do
    if tag then break end
    if place ~= first then tag = pop(how.queues[place].name) end
  end
  return tag
end

local function select(free)
  local left = free
  while left > 0 do
    local tag = choose()
    if not tag then return false end
    if lease(tag) then left = left - 1 end
  end
  return true
end

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
    if known[1] then forget(member, known[1], known[2]) end
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
      forget(other, about[4], turn)
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

local function reap(limit)
  if call('SCARD', P .. 'running') > call('ZCARD', P .. 'leases') then
    for _, tag in ipairs(call('SMEMBERS', P .. 'running')) do  -- leases were lost with a flush
      call('ZADD', P .. 'leases', 'NX', now + how.lease, tag)
    end
  end
  if not is_steady() then return 0 end
  local lapsed = call('ZRANGEBYSCORE', P .. 'leases', '-inf', now, 'LIMIT', 0, limit)
  local blame = most_blamed(lapsed)
  for _, tag in ipairs(lapsed) do
    local about = field(tag, 'n', 'q', 't', 's', 'j', 'u', 'g', 'l', 'raw', 'w')
    local lapses = tonumber(about[8])
    if not about[1] then
      call('SREM', P .. 'running', tag)
      call('ZREM', P .. 'leases', tag)
    elseif about[10] and lapses < blame[about[10]] then
      let_go(tag, about[3])
      make_ready(tag, about[2], about[3], true)
    elseif lapses + 1 >= how.attempts then
      local reason = 'lost its worker (' .. how.attempts .. ' times)'
      bury_followers(about[4], about[6], reason)
      bury_running(tag, about, reason)
    else
      call('HINCRBY', P .. 'message:' .. tag, 'l', 1)
      let_go(tag, about[3])
      make_ready(tag, about[2], about[3], true)
    end
  end
  call('ZREMRANGEBYSCORE', P .. 'cancelled', '-inf', now)
  if call('EXISTS', P .. 'suspect') == 0 then next_suspect() end
  return #lapsed
end

-- Cancellation.

local function remember(name) call('ZADD', P .. 'cancelled', now + how.remember, name) end

local function put_back(members, lane, tag)
  -- Messages that `tag` had collected wait behind it again, in their order.
  for place = #members, 1, -1 do
    if exists(members[place]) then
      call('LINSERT', P .. 'lane:' .. lane, 'AFTER', tag, members[place])
    end
  end
end

local function withdraw_waiting(tag, job)
  local about = field(tag, 'q', 't', 's', 'u', 'g', 'raw')
  if not about[1] then
    call('HDEL', P .. 'jobs', job)  -- its message is gone
    return nil
  end
  call('LREM', P .. 'ready:' .. about[1] .. ':' .. about[2], 1, tag)
  call('LREM', P .. 'suspects', 1, tag)
  put_back(about[5] and cjson.decode(about[5]) or {}, about[3], tag)  -- they are to run without it
  forget(tag, job, about[4])
  advance(about[3], tag)
  return { queue = about[1], raw = about[6], turn = about[4] }
end

local function leave(message, job)
  -- A worker gets it with the verdict, outside of its lane, and tells of it: whoever withdrew it may
  -- not live to.
  local tag = job .. '+' .. call('INCR', P .. 'tick')
  call('HSET', P .. 'message:' .. tag, 'raw', message.raw, 'q', message.queue, 'j', job, 't', '',
    's', '', 'n', 0, 'l', 0, 'b', '', 'v', 'cancelled', 'u', message.turn)
  register(job, tag)
  know(job, message.turn)
  make_ready(tag, message.queue, '', true)
end

local function withdraw(job, for_good)
  local found, gone = 'unknown', nil
  local tag = call('HGET', P .. 'jobs', job)
  while tag do
    local earlier, verdict, lane = unpack(field(tag, 'p', 'v', 's'))
    if call('SISMEMBER', P .. 'running', tag) == 1 then
      -- Its worker hears of it with the next renewal of its lease, or should it die, the next one.
      if for_good then call('HSET', P .. 'message:' .. tag, 'v', 'cancelled') end
      found = 'running'
    elseif verdict == 'cancelled' and lane == '' then
      if found ~= 'running' then found = 'leaving' end  -- whoever gets it says so
    else
      gone = withdraw_waiting(tag, job) or gone
    end
    tag = earlier and exists(earlier) and earlier
  end
  if found == 'unknown' and gone then
    leave(gone, job)
    return 'withdrawn'
  end
  if found == 'unknown' and for_good then remember(job) end
  return found
end

local function part(token, jobs)
  -- These jobs, which it had collected, are not run with it after all.
  local tag, about = held(token)
  if not tag or not about[7] then return 0 end
  local leaving, left, stay = {}, {}, {}
  for _, job in ipairs(jobs) do leaving[job] = true end
  for _, member in ipairs(cjson.decode(about[7])) do
    local list = leaving[field(member, 'j')[1]] and left or stay
    list[#list + 1] = member
  end
  put_back(left, about[4], tag)
  if #stay > 0 then
    call('HSET', P .. 'message:' .. tag, 'g', cjson.encode(stay))
  else
    call('HDEL', P .. 'message:' .. tag, 'g')
  end
  return #left
end

local function members(token)
  local tag, about = held(token)
  local jobs = {}
  for _, member in ipairs(tag and about[7] and cjson.decode(about[7]) or {}) do
    jobs[#jobs + 1] = field(member, 'j')[1] or nil
  end
  return jobs
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
  call('DEL', P .. 'dead:' .. id)
  call('ZREM', P .. 'dead', id)
  return 'replayed'
end

-- What was asked for.

if ask.op == 'exchange' then
  for _, token in ipairs(ask.settled) do settle(token) end
  for _, token in ipairs(ask.released) do release(token) end
  local more = intake(ask.intake)
  if ask.free > 0 then more = select(ask.free) or more end
  return { deliveries, interrupts, buried, more and 1 or 0 }
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
  return { lapsed, untold }
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
