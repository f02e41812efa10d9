"""Operations: one verb each. They ask the layers below, tell a reporter, and never each other."""
