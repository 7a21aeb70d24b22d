-- From ready to running, under a lease: fair between users and queues (`pop`, `choose`); `collect`
-- joins turns that waited behind a busy session.

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
    if tag then
      call('ZREM', depth('ready', queue), tag)
      return tag
    end
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

local function waits_as_suspect(tag, lapses, queue, since)
  -- What has lost several workers may be what kills them. Such messages run one at a time among
  -- all workers: then only one's neighbours are lost with it, and no innocent one is lost with
  -- others of its kind until it counts as dead.
  if lapses < how.suspect then return false end
  local other = call('GET', P .. 'suspect')
  if other and other ~= tag and call('SISMEMBER', P .. 'running', other) == 1 then
    call('RPUSH', P .. 'suspects', tag)
    call('ZADD', depth('behind', queue), since, tag)
    return true
  end
  call('SET', P .. 'suspect', tag)
  return false
end

local function lease(tag)
  local about = field(tag, 'raw', 'q', 't', 's', 'l', 'b', 'v', 'n', 'at', 'ra', 'rb')
  if not about[1] then return false end
  local since = tonumber(about[9] or now)
  if waits_as_suspect(tag, tonumber(about[5]), about[2], since) then return false end
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
    now - since, is_first and about[10] and tonumber(about[10]) - since or 0, about[11] or '',
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
