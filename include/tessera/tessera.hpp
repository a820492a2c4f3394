// tessera: small language models on mobile GPUs. The header an app includes.
//   Device    one GPU through one API            Model     weights and plans on a device, shared by sessions
//   Session   one conversation                   Result<T> a value, or an Error that says what to do
#pragma once
#include "tessera/engine/device.hpp"
#include "tessera/engine/model.hpp"
#include "tessera/engine/options.hpp"
#include "tessera/engine/session.hpp"
#include "tessera/version.hpp"
