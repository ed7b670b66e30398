# Not an element: objects that overlays link in.
CORE_OBJECTS := $(patsubst $(IMAGES)/%.c,$(OBJ)/%.o,$(wildcard $(IMAGES)/_core/*.c))
