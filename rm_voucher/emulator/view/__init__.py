"""What a person sees of the emulator: its books, its requests and callbacks as JSON, and live."""
