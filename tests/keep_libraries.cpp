// Linked into the tests under sanitizers. The Vulkan loader unloads a driver together with its instance, and what the driver's globals still point to
// (lavapipe: 128 bytes an instance) would be a leak from a module without a name, which no suppression can match. So libraries stay.
extern "C" int dlclose(void*);
extern "C" int dlclose(void*) { return 0; }
