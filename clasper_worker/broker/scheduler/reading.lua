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

-- Whether it is a message at all.

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
