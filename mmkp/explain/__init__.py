"""Why a model says what it says: what each modality is worth, and what in one picture, text and sound it went by."""
