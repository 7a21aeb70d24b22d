-- From the stock lists into lanes: the order of a session's turns, and what happens to one that
-- comes while its session is busy (enqueue, reject, interrupt, collect). A running heartbeat is
-- cancelled for the first turn of its session.

local function is_cancelled(job, turn)
  if call('ZSCORE', P .. 'cancelled', job) then return true end
  return turn ~= job and call('ZSCORE', P .. 'cancelled', turn)
end

local NOT_CELERYS = 'not a message of Celery'
local NOT_JSON = NOT_CELERYS .. " with a JSON body: send it with task_serializer = 'json'"

local function admit(raw, queue)
  local message, unreadable = read(raw)
  if not message then
    local reason = unreadable and NOT_JSON or NOT_CELERYS
    bury(redis.sha1hex(raw .. now), raw, queue, unreadable, '', reason, 0)
    return
  end
  local job, tag = message.headers.id, message.properties.delivery_tag
  if exists(tag) then
    tag = tag .. '+' .. call('INCR', P .. 'tick')
  end
  local tenant, lane, busy, turn, yields, session = route(message)
  local verdict = ''
  if is_cancelled(job, turn) then verdict, lane = 'cancelled', '' end  -- whoever runs it says so
  local place, rolled_back = 0, nil
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
      local stops = verdict == '' and (((policy == 'interrupt' or policy == 'rollback') and not follows) or gives_way)
      if stops then
        local agrees = is_as_said(message)
        if agrees == false then verdict = 'misrouted' end
        stops = agrees
      end
      if verdict ~= '' then
        call('RPOP', key)
        lane = ''
      elseif stops then
        local interrupted = running[1]
        if interrupted then
          interrupts[#interrupts + 1] = interrupted
          call('HSET', P .. 'message:' .. head, 'v', 'cancelled')  -- should its worker die first
          if policy == 'rollback' then rolled_back = cjson.encode({ interrupted, running[3] }) end
        end
      end
    end
  end
  if verdict ~= '' then tenant = '' end  -- it does nothing: no cap and no backlog delays its answer
  call('HSET', P .. 'message:' .. tag, 'raw', raw, 'q', queue, 'j', job, 't', tenant, 's', lane,
    'n', 0, 'l', 0, 'b', busy, 'v', verdict, 'u', turn, 'at', now)
  if rolled_back then call('HSET', P .. 'message:' .. tag, 'rb', rolled_back) end
  if yields then call('HSET', P .. 'message:' .. tag, 'y', '1') end
  local first_message, first_job = register(job, tag), know(job, turn)
  if lane == '' or place == 1 then return make_ready(tag, queue, tenant, false, now) end
  call('ZADD', depth('behind', queue), now, tag)
  if first_message and first_job then
    local is_notification = message.headers.clasper_notification and 1 or 0
    queued[#queued + 1] = { job, turn, tenant, session, place - 1, is_notification }
  end
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
