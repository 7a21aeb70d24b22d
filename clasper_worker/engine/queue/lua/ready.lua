-- What may run: users take turns, each within its cap (`rotate`, `is_capped`); the next turn of a
-- session is ready when the one before has ended (`advance`).

local function know(job, turn)
  -- Whether no other job asked for the turn before.
  if turn == job then return true end
  call('SADD', P .. 'turn-jobs:' .. turn, job)
  call('PEXPIRE', P .. 'turn-jobs:' .. turn, how.remember)
  return call('SCARD', P .. 'turn-jobs:' .. turn) == 1
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

local function make_ready(tag, queue, tenant, in_front, since)
  call(in_front and 'LPUSH' or 'RPUSH', P .. 'ready:' .. queue .. ':' .. tenant, tag)
  call('ZADD', depth('ready', queue), since or field(tag, 'at')[1] or now, tag)
  rotate(queue, tenant)
end

local function exists(tag) return call('EXISTS', P .. 'message:' .. tag) == 1 end

local function register(job, tag)
  if call('HSETNX', P .. 'jobs', job, tag) == 1 then return true end
  -- The job came again: as a retry does, or where a producer sent it twice.
  local earlier = call('HGET', P .. 'jobs', job)
  if exists(earlier) then call('HSET', P .. 'message:' .. tag, 'p', earlier) end
  call('HSET', P .. 'jobs', job, tag)
end

local function forget(tag, job, turn, waited)
  local earlier, queue = unpack(field(tag, 'p', 'q'))
  if queue and waited then
    call('ZREM', depth('ready', queue), tag)
    call('ZREM', depth('behind', queue), tag)
  end
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
    local about = field(following, 'q', 't', 'at')
    if about[1] then
      call('ZREM', depth('behind', about[1]), following)
      call('HSET', P .. 'message:' .. following, 'ra', now)
      make_ready(following, about[1], about[2], false, about[3])
      return
    end
    call('LPOP', key)  -- its message is gone: it must not bar the way for ever
  end
end
