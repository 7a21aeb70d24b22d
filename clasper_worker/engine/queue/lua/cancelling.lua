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

local function strike_off(tag, lane)
  -- It runs with no other message any more, also if it should come again under the same tag.
  local head = call('LINDEX', P .. 'lane:' .. lane, 0)
  local group = head and field(head, 'g')[1]
  if not group then return end
  local left = {}
  for _, member in ipairs(cjson.decode(group)) do
    if member ~= tag then left[#left + 1] = member end
  end
  if #left > 0 then
    call('HSET', P .. 'message:' .. head, 'g', cjson.encode(left))
  else
    call('HDEL', P .. 'message:' .. head, 'g')
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
  if about[3] ~= '' then strike_off(tag, about[3]) end
  put_back(about[5] and cjson.decode(about[5]) or {}, about[3], tag)  -- they are to run without it
  forget(tag, job, about[4], true)
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
